// The overview: fetches the ranking while the page is already there, makes its names links to the
// rollouts, and follows evaluations that run.
(() => {
  'use strict';
  const kept = new Map(); // run and task -> the ranking last shown, so that nothing flickers
  const quoted = text => /^[A-Za-z0-9_.-]+$/.test(text) ? text : `"${text.replace(/["\\]/g, '\\$&')}"`;

  async function board(element) {
    const {run, task} = element.dataset;
    const name = `${run} ${task}`;
    if (kept.has(name)) show(element, kept.get(name));
    for (let wait = 250; element.isConnected; wait = Math.min(3000, wait * 1.5)) {
      let found;
      try {
        const query = new URLSearchParams({run, task});
        found = await (await window.worldeval.fetch(`part/board?${query}`)).json();
      } catch (error) {
        const said = document.createElement('p');
        said.className = 'we-error';
        said.textContent = error.message;
        element.replaceChildren(said);
        return;
      }
      if (found.html && (kept.get(name) || {}).html !== found.html) { kept.set(name, found); show(element, found); }
      if (!found.busy) { element.dataset.done = 'yes'; return; }
      await new Promise(done => setTimeout(done, wait));
    }
  }

  function show(element, found) {
    element.innerHTML = found.html;
    const link = (query, inside) => {
      const a = document.createElement('a');
      a.href = '?' + new URLSearchParams({tab: 'browse', run: found.run, q: query, order: 'failing'});
      a.dataset.go = '';
      a.append(...inside.childNodes);
      inside.append(a);
    };
    const known = new Set(found.policies);
    const task = element.dataset.task;
    for (const name of element.querySelectorAll('span.name, th.name')) {
      const policy = name.textContent;
      if (known.has(policy) && !name.closest('thead'))
        link(`policy=${quoted(policy)}${task ? ` task=${quoted(task)}` : ''}`, name);
    }
    for (const table of element.querySelectorAll('table.heat')) {
      const tasks = [...table.querySelectorAll('thead th')].slice(1).map(th => th.textContent);
      for (const row of table.querySelectorAll('tbody tr'))
        row.querySelectorAll('td').forEach((cell, i) => link(
          `policy=${quoted(row.querySelector('th').textContent)} task=${quoted(tasks[i])}`, cell));
    }
    if (element.dataset.scrolled !== 'yes') element.dataset.scrolled = 'yes';
  }

  document.addEventListener('we:pane', event => {
    for (const element of event.detail.querySelectorAll('.we-board')) board(element);
  });

  let version;
  async function follow() {
    try {
      if (!document.hidden) {
        const found = await (await window.worldeval.fetch('status')).json();
        const status = document.querySelector('#we-status');
        if (status) status.textContent = found.text;
        const pane = document.querySelector('.we-pane[data-pane=overview]');
        if (version !== undefined && version !== found.version && pane && pane.offsetParent)
          window.worldeval.again(pane);
        version = found.version;
      }
    } catch { /* the next look tells */ }
    setTimeout(follow, 4000);
  }
  setTimeout(follow, 1500);
})();
