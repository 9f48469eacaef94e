// Any page as one HTML file: what is seen is copied, pictures and films go into it, and what needs a
// script (buttons, links, forms) becomes text. The server gives the file around it (one_file.py).
(() => {
  'use strict';
  const MOST_FILMS = 24 * 2 ** 20, MOST_PICTURES = 24 * 2 ** 20; // bytes in one file
  const KEPT = '.we-p-mark, .we-p-legend button, .we-p-memory button, .we-looked button';
  const WAIT_S = 60;
  const HERE = '<!-- here -->';

  const all = (root, selector) => [...root.querySelectorAll(selector)];
  const megabytes = bytes => `${(bytes / 2 ** 20).toFixed(1)} MB`;
  const seen = element => element.offsetParent !== null;
  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    element.className = className;
    element.textContent = text;
    return element;
  };
  const asData = blob => new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(blob);
  });
  async function fetched(url) {
    const answer = await fetch(url, {credentials: 'same-origin'});
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    return answer.blob();
  }

  // What is still on its way is waited for; a page that never comes is told.
  async function settled(pane) {
    const going = () => pane.getAttribute('aria-busy') || pane.querySelector(
      '[data-again], .we-board:not([data-done]), .we-player:not(.ready):not(:has(.we-error))');
    for (let waited = 0; going(); waited += 0.25) {
      if (waited > WAIT_S) throw new Error('this page is still being made; try again when it is there');
      await new Promise(done => setTimeout(done, 250));
    }
    const missing = all(pane, '[data-preview]').filter(p => seen(p) && !p.style.backgroundImage);
    await Promise.all(missing.map(window.worldeval.preview));
  }

  // The same picture in many places stands in the file once, as a variable of the style.
  async function pictures(copy, left) {
    const known = new Map();
    for (const element of all(copy, '[style*="url("]')) {
      const url = (element.style.backgroundImage.match(/url\("(.*)"\)/) || [])[1];
      if (!url) continue;
      if (!known.has(url)) {
        const blob = await fetched(url);
        left -= blob.size;
        known.set(url, left < 0 ? null : {name: `--picture-${known.size}`, data: await asData(blob)});
      }
      const picture = known.get(url);
      element.style.backgroundImage = picture ? `var(${picture.name})` : 'none';
    }
    const rules = [...known.values()].filter(Boolean).map(p => `${p.name}:url("${p.data}")`);
    return rules.length ? `<style>:root{${rules.join(';')}}</style>` : '';
  }

  // Of each side of a player the moment that is shown, and under it the whole film.
  async function films(pane, copy, left) {
    const players = all(pane, '.we-player');
    for (const [n, element] of all(copy, '.we-player').entries()) {
      const player = players[n].player;
      if (!player || !player.sides.length) continue;
      for (const [i, side] of all(element, '.we-p-side').entries()) {
        const film = await fetched(player.sides[i].video.src);
        const old = side.querySelector('video');
        if (film.size > left) {
          old.replaceWith(make('p', 'we-film-told', `The film (${megabytes(film.size)}) is left out: `
            + `a report holds ${megabytes(MOST_FILMS)} of films.`));
          continue;
        }
        left -= film.size;
        const video = document.createElement('video');
        video.className = 'we-film';
        for (const name of ['controls', 'muted', 'loop', 'playsinline']) video.setAttribute(name, '');
        video.setAttribute('src', await asData(film));
        old.replaceWith(make('p', 'we-film-told', 'The whole film:'), video);
      }
      const clock = element.querySelector('.we-p-clock');
      const transport = element.querySelector('.we-p-transport');
      if (transport) transport.replaceWith(make('p', 'we-film-told', `Shown above: ${clock.textContent}`));
    }
  }

  function stills(pane, copy) {
    const shown = all(pane, 'canvas');
    for (const [n, canvas] of all(copy, 'canvas').entries()) {
      const image = document.createElement('img');
      image.className = canvas.className;
      image.alt = canvas.getAttribute('aria-label') || '';
      image.src = shown[n].toDataURL('image/jpeg', 0.92);
      canvas.replaceWith(image);
    }
  }

  function text(pane, copy) {
    const given = all(pane, 'select, input, textarea');
    for (const [n, control] of all(copy, 'select, input, textarea').entries()) {
      const now = given[n];
      let told = now.value;
      if (now.tagName === 'SELECT') told = now.selectedOptions[0] ? now.selectedOptions[0].textContent : '';
      else if (now.type === 'checkbox' || now.type === 'radio') told = now.checked ? '☑' : '☐';
      if (now.type === 'hidden' || now.type === 'range' || !told) control.remove();
      else control.replaceWith(make('span', 'we-given', told));
    }
    for (const button of all(copy, 'button')) {
      if (!button.matches(KEPT)) { button.remove(); continue; }
      const plain = make('span', button.className, '');
      plain.append(...button.childNodes);
      for (const name of ['style', 'title']) if (button.hasAttribute(name)) plain.setAttribute(name, button.getAttribute(name));
      button.replaceWith(plain);
    }
    for (const form of all(copy, 'form')) {
      const plain = make('div', form.className, '');
      plain.append(...form.childNodes);
      form.replaceWith(plain);
    }
    for (const link of all(copy, 'a.we-button')) link.remove(); // it would lead nowhere
    for (const details of all(copy, 'details')) details.open = true;
    for (const gone of all(copy, 'script, style, link, iframe, object, embed, base, meta')) gone.remove();
    for (const element of [copy, ...all(copy, '*')])
      for (const {name} of [...element.attributes])
        if (name.startsWith('on') || name === 'href' || name.startsWith('data-')) element.removeAttribute(name);
  }

  async function report() {
    const tab = window.worldeval.state().get('tab') || 'overview';
    const pane = all(document, '.we-pane').find(seen);
    if (!pane) throw new Error('there is no page to report yet');
    await settled(pane);
    const heading = pane.querySelector('h2');
    const button = document.querySelector(`#we-tab-${tab}-button`); // in a menu on a small screen
    const name = button ? button.textContent.trim() : tab;
    const title = heading ? `${name}: ${heading.textContent.replace(/\s+/g, ' ').trim()}` : name;
    const query = new URLSearchParams({title, state: location.search || `?tab=${tab}`});
    const copy = pane.cloneNode(true);
    stills(pane, copy);
    await films(pane, copy, MOST_FILMS);
    const style = await pictures(copy, MOST_PICTURES);
    text(pane, copy);
    const frame = await (await window.worldeval.fetch(`report-frame?${query}`)).text();
    const at = frame.lastIndexOf(HERE);
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob(
      [frame.slice(0, at), style, copy.outerHTML, frame.slice(at + HERE.length)], {type: 'text/html'}));
    link.download = `worldeval-${tab}-${new Date().toISOString().slice(0, 10)}.html`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }

  document.addEventListener('click', async event => {
    const button = event.target.closest('#we-report');
    if (!button || button.disabled) return;
    const told = document.querySelector('#we-report-told');
    button.disabled = true;
    told.textContent = 'Making the report …';
    try { await report(); told.textContent = ''; } catch (error) { told.textContent = error.message; }
    button.disabled = false;
  });
})();
