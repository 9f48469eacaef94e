// One player for several films in step: the views of a rollout, what truly happened, other policies.
//
// <div class="we-player" data-src="rollout/ID rollout/ID2" data-truth></div>
//   data-src    JSON below inspector/ (player.py says what is in it), one a side
//   data-truth  adds what truly happened from the same start, where it is known
//   data-keep   keeps the second in the URL (?t=1.20) and begins there
// What the JSON of a side names as "later" is fetched when the films are there, and added.
// Its element carries `player` = {play, pause, seek(frame), step(n), frame, sides, playing} and tells
// "we:frame" (detail: frame) whenever another frame is shown. All sides share one clock in frames;
// the first side that still runs leads, the others follow within half a frame.
(() => {
  'use strict';
  const SPEEDS = [0.25, 0.5, 1, 2, 4];
  const GROUPS = {
    pose: 'Pose', gripper: 'Gripper', action: 'Actions', joints: 'Joints',
    probability: "Judge's probability", progress: 'Progress', trust: 'Trust',
  };
  const RAILS = {chunk: 'chunks', judge: 'judge', trust: 'trust', memory: 'memory', success: 'world'};
  const SVG = 'http://www.w3.org/2000/svg';
  // Okabe and Ito: told apart by all eyes. The same name has the same colour in every plot.
  const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#8a8a8a'];

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes))
      if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const drawn = (tag, attributes) => {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const url = path => new URL(`inspector/${path}`, document.baseURI).href;
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  class Side {
    constructor(facts) {
      this.facts = facts;
      this.fps = facts.fps;
      this.video = make('video', {muted: '', playsinline: '', preload: 'auto', src: url(facts.film)});
      this.video.muted = true;
      this.canvases = facts.views.map(view => {
        const canvas = make('canvas', {width: 192, height: Math.round(192 / facts.aspect),
          role: 'img', 'aria-label': `${facts.title}, ${view} view`});
        canvas.style.aspectRatio = facts.aspect;
        return canvas;
      });
      this.state = make('span', {class: 'we-p-state'});
      const outcome = facts.outcome || '';
      this.element = make('figure', {class: `we-p-side ${facts.imagined ? 'imagined' : 'true'}`},
        make('figcaption', {}, make('b', {}, facts.title),
          facts.label ? make('span', {}, facts.label) : '',
          outcome ? make('span', {class: `we-outcome ${outcome}`}, outcome) : '', this.state),
        make('div', {class: 'we-p-views'}, ...facts.views.map((view, i) =>
          make('div', {class: 'we-p-view'}, this.canvases[i], make('span', {}, view)))),
        this.video);
      this.ready = new Promise((done, failed) => {
        this.video.addEventListener('loadeddata', () => { this.size(); this.draw(); done(); });
        this.video.addEventListener('error', () => failed(new Error(
          `the film of the ${facts.title} rollout cannot be played`)));
      });
      this.video.addEventListener('seeked', () => this.draw());
    }
    get last() { return this.facts.frames - 1; }
    get frame() { return clamp(Math.floor(this.video.currentTime * this.fps + 1e-3), 0, this.last); }
    size() {
      const width = Math.round(this.video.videoWidth / this.canvases.length);
      for (const canvas of this.canvases) {
        canvas.width = width; canvas.height = this.video.videoHeight;
      }
    }
    draw() {
      if (this.video.readyState < 2) return;
      this.canvases.forEach((canvas, i) => canvas.getContext('2d').drawImage(this.video,
        i * canvas.width, 0, canvas.width, canvas.height, 0, 0, canvas.width, canvas.height));
    }
    seek(seconds) { // to the middle of a frame, so that rounding cannot show its neighbour
      const frame = clamp(Math.floor(seconds * this.fps + 1e-3), 0, this.last);
      this.video.currentTime = (frame + 0.5) / this.fps;
    }
  }

  class Player {
    constructor(element) {
      this.element = element;
      element.player = this;
      this.playing = false;
      this.speed = 1;
      this.at = 0;
      this.sides = [];
      element.replaceChildren(make('p', {class: 'we-wait', role: 'status'}, 'Fetching the films …'));
      this.open().catch(error => element.replaceChildren(
        make('p', {class: 'we-error', role: 'alert'}, error.message)));
    }
    async open() {
      const names = this.element.dataset.src.split(/\s+/).filter(Boolean);
      const facts = await Promise.all(names.map(this.facts));
      if ('truth' in this.element.dataset)
        for (const side of [...facts]) if (side.truth) facts.push(await this.facts(`rollout/${side.truth}`));
      this.sides = facts.map(side => new Side(side));
      this.fps = this.sides[0].fps;
      this.last = Math.max(...this.sides.map(side => Math.round(side.last / side.fps * this.fps)));
      this.build();
      await Promise.all(this.sides.map(side => side.ready));
      this.element.classList.add('ready');
      const begin = 'keep' in this.element.dataset ? Number(window.worldeval.state().get('t')) : 0;
      this.seek(Number.isFinite(begin) ? Math.round(begin * this.fps) : 0, true);
      this.element.dispatchEvent(new CustomEvent('we:ready', {bubbles: true}));
      this.later();
    }
    // What judges think frame by frame takes them a while.
    async later() {
      const waiting = this.sides.map((side, i) => [side.facts.later, i]).filter(([path]) => path);
      if (!waiting.length) return;
      this.told.textContent = "The judge's probability and progress are being computed …";
      const notes = await Promise.all(waiting.map(([path, i]) => this.addLater(path, i).catch(
        error => [error.message])));
      const said = [...new Set(notes.flat())];
      this.told.textContent = said.map(note => note[0].toUpperCase() + note.slice(1)).join('. ');
      this.element.dataset.later = 'done';
    }
    async addLater(path, side) {
      for (let wait = 200; this.element.isConnected; wait = Math.min(3000, 1.5 * wait)) {
        const found = await this.facts(path);
        if (!found.busy) { this.add(found, side); return side ? [] : found.notes; }
        await new Promise(done => setTimeout(done, wait));
      }
      return [];
    }
    async facts(path) { return (await window.worldeval.fetch(path)).json(); }
    get frame() { return this.at; }

    build() {
      const button = (text, label, act) => make('button',
        {type: 'button', 'aria-label': label, title: label, onclick: act}, text);
      this.toggle = button('▶', 'Play (space)', () => this.playing ? this.pause() : this.play());
      this.toggle.classList.add('we-p-play');
      this.slider = make('input', {type: 'range', min: 0, max: this.last, step: 1, value: 0,
        'aria-label': 'Frame', oninput: () => { this.pause(); this.seek(Number(this.slider.value)); }});
      this.clock = make('output', {class: 'we-p-clock'});
      const speed = make('select', {'aria-label': 'Speed', onchange: () => {
        this.speed = Number(speed.value);
        for (const side of this.sides) side.video.playbackRate = this.speed;
      }}, ...SPEEDS.map(s => make('option', {value: s}, `${s}×`)));
      speed.value = '1';
      this.speeds = speed;
      this.told = make('p', {class: 'we-soft we-p-told', role: 'status'});
      this.remembered = make('div', {class: 'we-p-memory', 'aria-live': 'off'});
      this.element.replaceChildren(
        make('div', {class: 'we-p-sides', 'data-sides': this.sides.length},
          ...this.sides.map(side => side.element)),
        make('div', {class: 'we-p-transport'},
          button('⇤', 'To the start (home)', () => this.seek(0)),
          button('◂', 'A frame back (arrow left)', () => this.step(-1)), this.toggle,
          button('▸', 'A frame on (arrow right)', () => this.step(1)),
          this.slider, this.clock, speed),
        this.rail(), this.remembered, this.plots(), this.told);
      this.element.tabIndex = 0;
      this.element.setAttribute('aria-label',
        'Player: space plays, arrows step by a frame, with shift by a chunk');
    }

    play() {
      if (this.at >= this.last) this.seek(0);
      this.playing = true;
      this.toggle.textContent = '▮▮';
      this.toggle.setAttribute('aria-label', 'Pause (space)');
      this.began = null;
      for (const side of this.sides) {
        side.video.playbackRate = this.speed;
        if (this.at / this.fps * side.fps < side.last) side.video.play().catch(() => {});
      }
      requestAnimationFrame(() => this.tick());
    }
    pause() {
      if (!this.playing) return;
      this.playing = false;
      this.toggle.textContent = '▶';
      this.toggle.setAttribute('aria-label', 'Play (space)');
      for (const side of this.sides) side.video.pause();
      this.seek(this.at);
    }
    // While it plays: the longest side leads, a side that drifts by half a frame is set right.
    tick() {
      if (!this.playing || !this.element.isConnected) return;
      const lead = this.sides.reduce((a, b) => b.last / b.fps > a.last / a.fps ? b : a);
      const now = lead.video.currentTime;
      for (const side of this.sides) {
        const end = (side.last + 0.5) / side.fps;
        if (side !== lead && now < end) {
          const drift = side.video.currentTime - now;
          if (Math.abs(drift) > 0.5 / side.fps && !side.video.seeking) side.video.currentTime = now;
          else side.video.playbackRate = this.speed * clamp(1 - drift, 0.9, 1.1);
        }
        if (side.video.currentTime >= end && !side.video.paused) side.video.pause();
        side.draw();
      }
      this.shows(clamp(Math.floor(now * this.fps + 1e-3), 0, this.last));
      if (now >= (lead.last + 0.5) / lead.fps || lead.video.ended) { this.pause(); return; }
      requestAnimationFrame(() => this.tick());
    }
    seek(frame, quiet) {
      const wanted = clamp(Math.round(frame), 0, this.last);
      for (const side of this.sides) side.seek(wanted / this.fps);
      this.shows(wanted);
      if (!quiet && !this.playing && 'keep' in this.element.dataset)
        window.worldeval.keep({t: wanted ? (wanted / this.fps).toFixed(2) : null});
    }
    step(count) { this.pause(); this.seek(this.at + count); }
    chunk(way) {
      const starts = [...new Set(this.sides[0].facts.events.filter(e => e.kind === 'chunk')
        .map(e => Math.round(e.frame)))].sort((a, b) => a - b);
      const next = way > 0 ? starts.find(f => f > this.at) : starts.reverse().find(f => f < this.at);
      this.pause();
      this.seek(next === undefined ? (way > 0 ? this.last : 0) : next);
    }

    shows(frame) {
      this.at = frame;
      this.slider.value = frame;
      const second = (frame / this.fps).toFixed(2);
      this.clock.textContent = `${second} s · frame ${frame} of ${this.last}`;
      this.slider.setAttribute('aria-valuetext', `frame ${frame}, ${second} seconds`);
      const share = this.last ? frame / this.last : 0;
      this.element.style.setProperty('--at', share);
      for (const side of this.sides)
        side.state.textContent = frame / this.fps * side.fps > side.last ? 'over' : '';
      this.remember(frame);
      for (const read of this.readers || []) read(frame);
      this.element.dispatchEvent(new CustomEvent('we:frame', {detail: frame, bubbles: true}));
    }

    // The rail: a row a kind of event, a mark an event; marks are buttons.
    rail() {
      const rail = make('div', {class: 'we-p-rail', role: 'group', 'aria-label': 'Events'});
      this.railElement = rail;
      this.refreshRail();
      return rail;
    }
    refreshRail() {
      const events = this.sides[0].facts.events;
      this.railElement.replaceChildren(...Object.entries(RAILS).flatMap(([kind, label]) => {
        const marks = events.filter(event => event.kind === kind);
        if (!marks.length) return [];
        return [make('span', {class: 'we-p-name'}, label), make('div', {class: `we-p-row ${kind}`},
          ...marks.map(event => {
            const told = `${event.text} (frame ${Math.round(event.frame)})`;
            const mark = make('button', {type: 'button', class: 'we-p-mark', title: told,
              'aria-label': told, 'data-frame': event.frame,
              onclick: () => { this.pause(); this.seek(event.frame); }});
            mark.style.left = `${100 * (this.last ? event.frame / this.last : 0)}%`;
            return mark;
          }))];
      }));
    }
    // Which past frames the world model looks at while it imagines the chunk that is shown.
    remember(frame) {
      const first = this.sides[0].facts;
      const memories = first.events.filter(event => event.kind === 'memory');
      if (!memories.length) { this.remembered.hidden = true; return; }
      // Frame 0 of a chunk is the last one of the chunk before it.
      const now = [...memories].reverse().find(event => event.frame < frame);
      const shown = now ? now.frames.join(' ') : '';
      if (this.remembered.dataset.shown === shown && this.remembered.childElementCount) return;
      this.remembered.dataset.shown = shown;
      const note = now ? 'This chunk remembers' : 'The first chunk remembers nothing but the start';
      this.remembered.replaceChildren(make('span', {class: 'we-p-name'}, note),
        ...(now ? now.frames : []).map(n => make('button', {type: 'button', 'data-frame': n,
          'aria-label': `Memory frame ${n}`, title: `Go to frame ${n}`,
          onclick: () => { this.pause(); this.seek(n); }}, this.picture(first, n), `frame ${n}`)));
    }
    picture(facts, frame) {
      const sheet = facts.pictures, number = clamp(Math.floor(frame / sheet.every), 0, sheet.count - 1);
      const picture = make('span', {class: 'we-p-picture'});
      const x = number % sheet.columns, y = Math.floor(number / sheet.columns);
      const place = (k, n) => n > 1 ? 100 * k / (n - 1) : 0;
      Object.assign(picture.style, {aspectRatio: `${sheet.width} / ${sheet.height}`,
        backgroundImage: `url("${url(sheet.url)}")`,
        backgroundSize: `${100 * sheet.columns}% ${100 * sheet.rows}%`,
        backgroundPosition: `${place(x, sheet.columns)}% ${place(y, sheet.rows)}%`});
      return picture;
    }

    // Plots share the clock: one cursor, the value under it beside each name, series on and off.
    plots() {
      this.plotsElement = make('div', {class: 'we-p-plots'});
      this.refreshPlots();
      return this.plotsElement;
    }
    refreshPlots() {
      this.readers = [];
      const groups = Object.keys(GROUPS).map(group => [group, this.sides.flatMap((side, s) =>
        side.facts.curves.filter(curve => curve.group === group && (s === 0 || this.both(group)))
          .map(curve => ({...curve, side: s, name: this.named(group, curve.name, s)})))]);
      this.plotsElement.replaceChildren(...groups.filter(([, curves]) => curves.length)
        .map(([group, curves]) => this.plot(GROUPS[group], curves)));
    }
    // What judges think is one curve a side, so that sides are told apart by colour too.
    named(group, name, side) {
      const several = this.sides.length > 1 && (group === 'probability' || group === 'progress');
      return several ? this.sides[side].facts.title : name;
    }
    both(group) { return group === 'pose' || group === 'probability' || group === 'progress'; }
    plot(title, curves) {
      const names = [...new Set(curves.map(curve => curve.name))];
      const values = curves.flatMap(curve => curve.values).filter(value => value !== null);
      let low = Math.min(...values), high = Math.max(...values);
      if (title === GROUPS.probability || title === GROUPS.progress) { low = 0; high = 1; }
      if (high - low < 1e-9) { low -= 0.5; high += 0.5; }
      const picture = drawn('svg', {viewBox: '0 0 1000 100', preserveAspectRatio: 'none',
        role: 'img', 'aria-label': `${title} over time`});
      const x = at => 1000 * (this.last ? at / this.last : 0);
      const y = value => 96 - 92 * (value - low) / (high - low);
      if (low < 0 && high > 0) picture.append(drawn('line',
        {x1: 0, x2: 1000, y1: y(0), y2: y(0), class: 'we-p-zero'}));
      const lines = new Map(names.map(name => [name, []]));
      for (const curve of curves) {
        let path = '', pen = 'M';
        curve.at.forEach((at, i) => {
          const value = curve.values[i];
          if (value === null) { pen = 'M'; return; }
          if (curve.step && pen === 'L') path += `L${x(at).toFixed(1)} ${y(curve.values[i - 1]).toFixed(1)}`;
          path += `${pen}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
          pen = 'L';
        });
        const line = drawn('path', {d: path, class: curve.side ? 'we-p-line other' : 'we-p-line',
          stroke: COLOURS[names.indexOf(curve.name) % COLOURS.length]});
        picture.append(line);
        lines.get(curve.name).push(line);
      }
      const legend = make('div', {class: 'we-p-legend'}, ...names.map((name, i) => {
        const value = make('output');
        const curve = curves.find(c => c.name === name);
        this.readers.push(frame => {
          let last = -1;
          while (last + 1 < curve.at.length && curve.at[last + 1] <= frame + 1e-6) last++;
          const shown = last >= 0 ? curve.values[last] : null;
          value.textContent = shown === null ? '–' : shown.toFixed(Math.abs(shown) < 10 ? 3 : 1);
        });
        const key = make('button', {type: 'button', 'aria-pressed': 'true', title: 'Show or hide',
          onclick: () => {
            const on = key.getAttribute('aria-pressed') !== 'true';
            key.setAttribute('aria-pressed', on);
            for (const line of lines.get(name)) line.style.display = on ? '' : 'none';
          }}, name, value);
        key.style.setProperty('--colour', COLOURS[i % COLOURS.length]);
        return key;
      }));
      const area = make('div', {class: 'we-p-area', onpointerdown: event => {
        const box = area.getBoundingClientRect();
        const go = e => this.seek(this.last * clamp((e.clientX - box.left) / box.width, 0, 1));
        this.pause(); go(event);
        area.setPointerCapture(event.pointerId);
        area.onpointermove = go;
        area.onpointerup = () => { area.onpointermove = null; };
      }}, picture, make('div', {class: 'we-p-cursor'}));
      return make('section', {class: 'we-p-plot'}, make('h4', {}, title), legend, area);
    }

    // Curves and events that came later, such as what a judge computes when asked.
    add({curves = [], events = []}, side = 0) {
      this.sides[side].facts.curves.push(...curves);
      this.sides[side].facts.events.push(...events);
      this.refreshRail();
      this.refreshPlots();
      this.shows(this.at);
    }
  }

  function openAll(root) {
    for (const element of root.querySelectorAll('.we-player[data-src]'))
      if (!element.player) new Player(element);
  }
  document.addEventListener('we:pane', event => openAll(event.detail));

  document.addEventListener('keydown', event => {
    if (event.target.closest('input:not([type=range]), textarea, select, [contenteditable]')) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const inside = event.target.closest('.we-player');
    const seen = element => element.offsetParent !== null;
    const element = inside || [...document.querySelectorAll('.we-player.ready')].find(seen);
    const player = element && element.player;
    if (!player || !player.slider) return;
    const onButton = event.target.closest('button, a, [role=tab]');
    const acts = {
      ' ': () => player.playing ? player.pause() : player.play(),
      ArrowLeft: () => event.shiftKey ? player.chunk(-1) : player.step(-1),
      ArrowRight: () => event.shiftKey ? player.chunk(1) : player.step(1),
      Home: () => player.step(-1e9),
      End: () => player.step(1e9),
      '+': () => player.faster(1),
      '-': () => player.faster(-1),
    };
    if (!(event.key in acts) || (onButton && event.key === ' ')) return;
    if (onButton && onButton.getAttribute('role') === 'tab') return; // arrows move between tabs
    event.preventDefault();
    acts[event.key]();
  });
  Player.prototype.faster = function (way) {
    const next = clamp(SPEEDS.indexOf(this.speed) + way, 0, SPEEDS.length - 1);
    this.speeds.value = SPEEDS[next];
    this.speeds.dispatchEvent(new Event('change'));
  };

  window.worldeval.Player = Player;
  window.worldeval.openPlayers = openAll;
})();
