// Live: drives the imagined world. All that happens is asked of the server one chunk at a time; the
// world is known there by this browser's cookie, so nothing here names it.
(() => {
  'use strict';
  const KEYS = {
    ArrowUp: 'f', ArrowDown: 'b', ArrowLeft: 'l', ArrowRight: 'r', PageUp: 'u', PageDown: 'd',
    u: 'u', d: 'd', o: 'o', c: 'c', ' ': '.',
  };
  const SIGNS = {start: '●', keys: '⌨', poses: '✎', policy: '⚙'};
  const SVG = 'http://www.w3.org/2000/svg';
  const make = (tag, names = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(names))
      if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
      else if (value !== null) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const drawn = (tag, names, text = '') => {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(names)) element.setAttribute(name, value);
    element.textContent = text;
    return element;
  };
  const picture = source => new Promise((done, failed) => {
    const image = new Image();
    image.onload = () => done(image);
    image.onerror = () => failed(new Error('a picture could not be read'));
    image.src = source;
  });

  class Drive {
    constructor(root) {
      this.root = root;
      this.find = name => root.querySelector(name);
      this.held = new Set();
      this.tapped = '';
      this.mode = '';       // what goes on by itself: '', 'follow' or 'policy'
      this.busy = false;
      this.usual = 0.3;     // seconds that a chunk took last
      this.path = null;     // drawn: {view, points}
      root.drive = this;
      this.find('[data-begin]').addEventListener('submit', event => {
        event.preventDefault();
        const form = new FormData(event.target);
        this.begin(String(form.get('start')), Number(form.get('seed')) || 0);
      });
      for (const pad of root.querySelectorAll('[data-key]')) {
        const key = pad.dataset.key;
        pad.addEventListener('pointerdown', () => { this.held.add(key); this.tap(key); });
        for (const name of ['pointerup', 'pointerleave', 'pointercancel'])
          pad.addEventListener(name, () => this.held.delete(key));
        pad.addEventListener('click', event => { if (event.detail === 0) this.tap(key); });
      }
      const speed = this.find('[data-speed]');
      speed.addEventListener('input', () => {
        speed.nextElementSibling.value = `${Math.round(100 * speed.value)} %`;
      });
      for (const button of root.querySelectorAll('[data-act]'))
        button.addEventListener('click', () => this[button.dataset.act]());
      this.resume();
    }

    async ask(path, body) {
      const options = body === undefined ? {} : {method: 'POST', body: JSON.stringify(body),
        headers: {'content-type': 'application/json'}};
      return (await window.worldeval.fetch(`live/${path}`, options)).json();
    }
    say(text, wrong = false) {
      const line = this.find('.we-l-say');
      line.textContent = text;
      line.classList.toggle('we-l-wrong', wrong);
    }
    async resume() {
      const told = await this.ask('now');
      if (told.open) await this.shape(told);
    }
    async begin(start, seed) {
      this.stop();
      this.say('Opening the world …');
      try {
        await this.shape(await this.ask('begin', {start, seed}));
        window.worldeval.keep({start});
        this.find('.we-l-stage').focus();
      } catch (error) { this.say(error.message, true); }
    }

    // A world as a whole: one canvas per view, and the tree of moments.
    async shape(told) {
      this.told = told;
      this.moments = told.moments;
      this.now = told.now;
      this.canvases = told.views.map(view => {
        const can = told.drawable.includes(view);
        const canvas = make('canvas', {width: told.size[1] * 4, height: told.size[0] * 4,
          role: 'img', 'aria-label': `${view} view`, class: can ? 'we-l-can' : null});
        if (can) this.pencil(canvas, view);
        return canvas;
      });
      this.find('.we-l-views').replaceChildren(...told.views.map((view, i) => make('figure', {},
        this.canvases[i], make('figcaption', {}, view,
          told.drawable.includes(view) ? make('span', {}, ' ✎ draw here') : ''))));
      const words = this.find('#we-l-words');
      if (words) words.value = told.instruction;
      this.hands = told.hand;
      this.sheet = await picture(told.sheet);
      this.count = told.count;
      this.paint(this.count - 1);
      this.tree();
      this.say(`“${told.instruction}” · drive with the arrows, PgUp, PgDn, O, C, or draw a path.`);
    }
    paint(row) {
      this.row = row;
      const [height, width] = this.told.size;
      this.canvases.forEach((canvas, i) => {
        const pen = canvas.getContext('2d'), view = this.told.views[i];
        pen.imageSmoothingEnabled = true;
        pen.imageSmoothingQuality = 'high';
        pen.drawImage(this.sheet, i * width, row * height, width, height,
          0, 0, canvas.width, canvas.height);
        const line = this.path && (this.path.on ? this.path.on[view]
          : this.path.view === view ? this.path.points : null);
        if (line) this.stroke(pen, canvas, line);
        const hand = this.hands && this.hands[view] && this.hands[view][row];
        if (hand) {
          pen.beginPath();
          pen.arc(hand[0] * canvas.width, hand[1] * canvas.height, 5, 0, 7);
          pen.lineWidth = 2;
          pen.strokeStyle = '#fff';
          pen.stroke();
          pen.beginPath();
          pen.arc(hand[0] * canvas.width, hand[1] * canvas.height, 6.5, 0, 7);
          pen.lineWidth = 1.2;
          pen.strokeStyle = '#0072b2';
          pen.stroke();
        }
      });
    }
    stroke(pen, canvas, points) {
      for (const [width, colour] of [[5, 'rgba(255,255,255,.85)'], [2.4, '#c25400']]) {
        pen.beginPath();
        points.forEach(([u, v], i) => pen[i ? 'lineTo' : 'moveTo'](u * canvas.width, v * canvas.height));
        pen.lineWidth = width;
        pen.lineJoin = pen.lineCap = 'round';
        pen.strokeStyle = colour;
        pen.stroke();
      }
    }

    // One step: asked, shown frame by frame, and timed from the key to the first picture.
    async step(path, body, name) {
      if (this.busy || !this.told) return null;
      this.busy = true;
      const began = performance.now();
      const bar = this.find('.we-l-bar');
      const slow = setTimeout(() => {
        bar.hidden = false;
        bar.firstElementChild.style.animationDuration = `${this.usual}s`;
      }, 700);
      try {
        const told = await this.ask(path, body);
        this.sheet = await picture(told.sheet);
        this.hands = told.hand;
        this.count = told.count;
        this.paint(0);
        const took = (performance.now() - began) / 1000;
        this.usual = took;
        this.moments.push(told.moment);
        this.now = told.now;
        this.find('.we-l-time').textContent =
          `${name}: ${took.toFixed(2)} s to picture (world ${told.moment.s.toFixed(2)} s)`;
        this.tree();
        this.play(told.count);
        this.root.dataset.steps = Number(this.root.dataset.steps || 0) + 1;
        this.told.pose = told.pose;
        return told;
      } catch (error) {
        this.stop();
        this.say(error.message, true);
        return null;
      } finally {
        clearTimeout(slow);
        bar.hidden = true;
        this.busy = false;
      }
    }
    play(count) {
      clearTimeout(this.playing);
      const next = row => {
        if (row >= count) return;
        this.paint(row);
        this.playing = setTimeout(next, 1000 / this.told.fps, row + 1);
      };
      this.playing = setTimeout(next, 1000 / this.told.fps, 1);
    }

    // Keys: all that are held act at once; a tap counts even when it was short.
    tap(key) {
      if (!this.told) return this.say('Choose a start state and press “Begin here”.');
      this.stop();
      if (!this.tapped.includes(key)) this.tapped += key;
      this.turn();
    }
    async turn() {
      if (this.busy) return;
      const keys = [...new Set([...this.tapped, ...this.held])].join('');
      this.tapped = '';
      if (!keys) return;
      if (!this.mode) this.path = null;
      const speed = Number(this.find('[data-speed]').value);
      if (await this.step('keys', {keys, speed}, keys === '.' ? 'wait' : `keys ${keys}`)) this.turn();
    }
    stop() {
      if (this.mode) this.say('You have control again.');
      this.mode = '';
      const button = this.find('[data-act=policy]');
      if (button) button.textContent = 'Let it act';
    }

    // A path drawn with the pencil.
    pencil(canvas, view) {
      const place = event => {
        const box = canvas.getBoundingClientRect();
        const inside = x => Math.min(1, Math.max(0, x));
        return [inside((event.clientX - box.left) / box.width),
          inside((event.clientY - box.top) / box.height)];
      };
      let points = null;
      canvas.addEventListener('pointerdown', event => {
        event.preventDefault();
        this.stop();
        canvas.setPointerCapture(event.pointerId);
        points = [place(event)];
      });
      canvas.addEventListener('pointermove', event => {
        if (!points || points.length > 1990) return;
        points.push(place(event));
        this.path = {view, points};
        this.paint(this.row);
      });
      canvas.addEventListener('pointerup', () => {
        const line = points;
        points = null;
        if (line) this.follow(view, line);
      });
      canvas.addEventListener('pointercancel', () => { points = null; });
    }
    async follow(view, points) {
      if (this.busy) { this.path = null; return; }
      const plane = this.find('[data-plane]').value;
      try {
        const plan = await this.ask('sketch', {view, points,
          height_m: plane === '' ? null : Number(plane),
          speed: Number(this.find('[data-speed]').value)});
        this.path = {view, points, on: plan.path};
        this.mode = 'follow';
        this.say(`Following the path: ${plan.left} frames. Any key stops it.`);
      } catch (error) { this.path = null; this.paint(this.row); return this.say(error.message, true); }
      let told;
      do told = await this.step('follow', {}, 'path');
      while (told && told.left && this.mode === 'follow');
      if (told && !told.left) { this.mode = ''; this.say('The path is followed to its end.'); }
    }

    // A policy for as long as one lets it.
    async policy() {
      if (this.mode === 'policy') return this.stop();
      if (!this.told) return this.say('Choose a start state and press “Begin here”.');
      const policy = this.find('#we-l-policy').value, instruction = this.find('#we-l-words').value;
      this.path = null;
      this.mode = 'policy';
      this.find('[data-act=policy]').textContent = 'Take back control';
      this.say(`${policy} acts, told “${instruction}”. Any key takes control back.`);
      this.find('.we-l-stage').focus();
      while (this.mode === 'policy' && await this.step('policy', {policy, instruction}, policy));
    }

    async go(number) {
      this.stop();
      if (this.busy || !this.told || number < 0) return;
      this.path = null;
      try { await this.shape(await this.ask('go', {number})); } catch (error) { this.say(error.message, true); }
      this.say(`Back at ${number ? `moment ${number}` : 'the start'}; what you do now branches off.`);
    }
    back() {
      const parent = this.moments && this.moments[this.now].parent;
      if (parent !== null && parent !== undefined) this.go(parent);
    }
    async save() {
      const line = this.find('.we-l-saved');
      line.textContent = 'Saving …';
      try {
        const told = await this.ask('save', {name: this.find('#we-l-name').value});
        const link = make('a', {href: `?tab=browse&run=${encodeURIComponent(told.run)}`,
          'data-go': ''}, 'Browse');
        line.replaceChildren(`Saved as ${told.key} in ${told.folder}. `, told.run ? link : '');
      } catch (error) { line.textContent = error.message; }
    }

    // The tree: time runs right, each branch has its own line.
    tree() {
      const dot = 15, gap = 30, rise = 26, at = [], lanes = [];
      const path = new Set();
      for (let n = this.now; n !== null; n = this.moments[n].parent) path.add(n);
      for (const moment of this.moments) {
        const first = moment.parent === null || !lanes[moment.parent];
        const lane = first ? (moment.parent === null ? 0 : at[moment.parent].lane)
          : Math.max(...at.map(a => a.lane)) + 1;
        if (moment.parent !== null) lanes[moment.parent] = true;
        at.push({lane, deep: moment.parent === null ? 0 : at[moment.parent].deep + 1});
      }
      const x = a => 14 + a.deep * gap, y = a => 14 + a.lane * rise;
      const width = 30 + gap * Math.max(...at.map(a => a.deep));
      const height = 28 + rise * Math.max(...at.map(a => a.lane));
      const picture = drawn('svg', {width, height, role: 'group', 'aria-label': 'moments'});
      this.moments.forEach((moment, n) => {
        if (moment.parent === null) return;
        const a = at[moment.parent], b = at[n];
        const bend = a.lane === b.lane ? '' : `L${x(b) - gap / 2} ${y(b)}`;
        picture.append(drawn('path', {d: `M${x(a)} ${y(a)}${bend}L${x(b)} ${y(b)}`,
          class: path.has(n) ? 'on' : ''}));
      });
      this.moments.forEach((moment, n) => {
        const group = drawn('g', {class: `${path.has(n) ? 'on' : ''}${n === this.now ? ' now' : ''}`,
          tabindex: 0, role: 'button', 'data-moment': n});
        const what = moment.by === 'start' ? 'the start' : `${moment.by} ${moment.what}`;
        group.append(drawn('circle', {cx: x(at[n]), cy: y(at[n]), r: dot / 1.6}),
          drawn('text', {x: x(at[n]), y: y(at[n]) + 4}, SIGNS[moment.by]),
          drawn('title', {}, `${what}${moment.instruction && n ? ` “${moment.instruction}”` : ''}, ` +
            `${moment.frames} frames, ${moment.s} s`));
        group.addEventListener('click', () => this.go(n));
        group.addEventListener('keydown', event => { if (event.key === 'Enter') this.go(n); });
        picture.append(group);
      });
      const box = this.find('.we-l-tree');
      box.replaceChildren(picture);
      const here = picture.querySelector('.now');
      if (here) box.scrollLeft = x(at[this.now]) - box.clientWidth / 2;
    }
  }

  const current = () => [...document.querySelectorAll('[data-live]')]
    .find(root => root.offsetParent !== null && root.drive && root.drive.told);
  document.addEventListener('keydown', event => {
    const root = current();
    if (!root || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest('input, select, textarea, [role=tab]')) return;
    const drive = root.drive, key = KEYS[event.key] || KEYS[event.key.toLowerCase()];
    if (key === '.' && event.target.closest('button, a')) return;
    if (event.key === 'Escape') drive.stop();
    else if (event.key === 'Backspace') drive.back();
    else if (!key) return;
    else {
      drive.held.add(key);
      if (!event.repeat) drive.tap(key);
    }
    event.preventDefault();
    event.stopPropagation();
  }, true);
  document.addEventListener('keyup', event => {
    const root = current(), key = KEYS[event.key] || KEYS[event.key.toLowerCase()];
    if (root && key) root.drive.held.delete(key);
  }, true);
  window.addEventListener('blur', () => { const root = current(); if (root) root.drive.held.clear(); });
  document.addEventListener('we:pane', event => {
    const root = event.detail.querySelector('[data-live]');
    if (root && !root.drive) new Drive(root);
  });
})();
