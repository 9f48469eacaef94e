// The client of the inspector. The URL is the whole state: a pane shows what the server makes of it.
//
// worldeval.state()             the state, a URLSearchParams
// worldeval.go({rollout: "…"})  changes it (null takes a name out) and shows what it says
// worldeval.keep({t: "1.20"})   changes it without showing anything anew
// worldeval.fetch("pane/x?…")   fetches below inspector/, also behind a proxy; throws sentences
// Panes tell of new content by the event "we:pane" on document (detail: the element).
(() => {
  'use strict';
  const state = () => new URLSearchParams(location.search);
  const base = () => new URL('inspector/', document.baseURI).href;
  const TAB = 'overview';

  async function fetchBelow(path, options) {
    const answer = await fetch(base() + path, {credentials: 'same-origin', ...options});
    if (answer.ok) return answer;
    let told = `the server answered ${answer.status}`;
    try { told = (await answer.json()).error || told; } catch { /* no JSON: the status says it */ }
    throw new Error(told);
  }

  function changed(names) {
    const next = state();
    for (const [name, value] of Object.entries(names))
      if (value === null || value === '') next.delete(name); else next.set(name, value);
    const text = next.toString();
    return location.pathname + (text ? `?${text}` : '');
  }
  function keep(names) { history.replaceState(null, '', changed(names)); }
  function go(names) {
    const url = changed(names);
    if (url !== location.pathname + location.search) history.pushState(null, '', url);
    show();
  }

  // Gradio owns the tabs; what is selected there and in the URL is kept the same.
  const button = name => document.querySelector(`#we-tab-${name}-button`);
  const selected = () => state().get('tab') || TAB;
  const pathOf = name => {
    const query = state();
    query.delete('t'); // where the player stands is its own affair
    return `pane/${name}?${query}`;
  };
  // The first page is asked for while Gradio still builds its tabs.
  let first = {path: pathOf(selected()), answer: fetchBelow(pathOf(selected()))};
  first.answer.catch(() => {}); // told where it is shown

  function show() {
    const wanted = button(selected());
    if (wanted && wanted.getAttribute('aria-selected') !== 'true') wanted.click();
    for (const pane of document.querySelectorAll('.we-pane')) fill(pane);
  }

  async function fill(pane) {
    const name = pane.dataset.pane;
    if (name !== selected()) return;
    const wanted = pathOf(name);
    if (pane.dataset.shown === wanted) return;
    pane.dataset.shown = wanted;
    pane.setAttribute('aria-busy', 'true');
    try {
      const known = first && first.path === wanted ? first.answer : fetchBelow(wanted);
      first = null;
      const html = await (await known).text();
      if (pane.dataset.shown !== wanted) return; // something newer was asked for meanwhile
      pane.innerHTML = html;
      if (pane.querySelector('[data-again]')) setTimeout(() => again(pane), 1000);
      document.dispatchEvent(new CustomEvent('we:pane', {detail: pane}));
    } catch (error) {
      if (pane.dataset.shown !== wanted) return;
      delete pane.dataset.shown;
      const said = document.createElement('p');
      said.className = 'we-error';
      said.setAttribute('role', 'alert');
      said.textContent = error.message;
      pane.replaceChildren(said);
    } finally {
      pane.removeAttribute('aria-busy');
    }
  }

  function again(pane) { delete pane.dataset.shown; fill(pane); }

  document.addEventListener('click', event => {
    const tab = event.target.closest('#we-tabs button[role=tab]');
    if (tab) {
      const name = (tab.id.match(/^we-tab-(.+)-button$/) || [])[1];
      if (name && name !== selected()) go({tab: name});
      return;
    }
    const link = event.target.closest('a[data-go]');
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    const url = new URL(link.href);
    if (url.search !== location.search) history.pushState(null, '', location.pathname + url.search);
    show();
  });
  document.addEventListener('submit', event => {
    const form = event.target.closest('form[data-go]');
    if (!form) return;
    event.preventDefault();
    const values = Object.fromEntries([...new FormData(form)].map(([n, v]) => [n, String(v)]));
    go({...values, page: null});
  });
  document.addEventListener('change', event => {
    const chosen = event.target.closest('[data-submit]');
    if (chosen && chosen.form) chosen.form.requestSubmit();
  });
  document.addEventListener('keydown', event => { // j and k: the next rollout and the one before
    if (event.target.closest('input, textarea, select') || event.ctrlKey || event.metaKey) return;
    const way = {j: 'later', k: 'earlier'}[event.key];
    const link = way && [...document.querySelectorAll('.we-title a[data-go]')]
      .find(a => a.offsetParent !== null && a.textContent.includes(way));
    if (link) link.click();
  });
  document.addEventListener('click', event => { // a frame that somebody looked at
    const button = event.target.closest('[data-seek]');
    const player = button && button.closest('.we-pane').querySelector('.we-player');
    if (player && player.player) { player.player.pause(); player.player.seek(Number(button.dataset.seek)); }
  });

  // Previews: a sheet of a few pictures; it is fetched when it comes into sight, and the pointer
  // runs through it.
  const seen = new IntersectionObserver(entries => {
    for (const entry of entries) if (entry.isIntersecting) { seen.unobserve(entry.target); preview(entry.target); }
  }, {rootMargin: '200px'});
  async function preview(element) {
    try {
      const sheet = await (await fetchBelow(`preview/${element.dataset.preview}`)).json();
      const put = number => {
        const x = number % sheet.columns, y = Math.floor(number / sheet.columns);
        const place = (k, n) => n > 1 ? 100 * k / (n - 1) : 0;
        element.style.backgroundPosition = `${place(x, sheet.columns)}% ${place(y, sheet.rows)}%`;
        element.style.setProperty('--seen', sheet.count > 1 ? number / (sheet.count - 1) : 0);
      };
      element.style.aspectRatio = `${sheet.width} / ${sheet.height}`;
      element.style.backgroundImage = `url("${base()}${sheet.url}")`;
      element.style.backgroundSize = `${100 * sheet.columns}% ${100 * sheet.rows}%`;
      put(sheet.count - 1);
      const card = element.closest('a, article') || element;
      card.addEventListener('pointermove', event => {
        const box = element.getBoundingClientRect();
        const share = Math.min(0.999, Math.max(0, (event.clientX - box.left) / box.width));
        put(Math.floor(share * sheet.count));
      });
      card.addEventListener('pointerleave', () => put(sheet.count - 1));
    } catch (error) {
      element.title = error.message;
      element.classList.add('broken');
    }
  }
  document.addEventListener('we:pane', event => {
    for (const element of event.detail.querySelectorAll('[data-preview]')) seen.observe(element);
  });
  window.addEventListener('popstate', show);
  // Gradio makes tabs and panes when it likes, before this script too, and a click on a tab that it
  // does not listen to yet is lost: so what is shown is looked after, at changes and now and then.
  const unfilled = () => [...document.querySelectorAll('.we-pane')].some(
    p => p.dataset.shown === undefined && !p.querySelector('.we-error') && p.dataset.pane === selected());
  new MutationObserver(() => { if (unfilled()) show(); })
    .observe(document.documentElement, {childList: true, subtree: true});
  setInterval(() => { // not at a change: within a click on a tab the URL is behind the tabs
    const wanted = button(selected());
    if (unfilled() || (wanted && wanted.getAttribute('aria-selected') !== 'true')) show();
  }, 300);

  window.worldeval = {state, go, keep, fetch: fetchBelow, show, again, preview};
})();
