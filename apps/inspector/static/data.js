// Data: the export of a dataset is begun, followed while it is written, and told when it is done.
(() => {
  'use strict';

  async function follow(form) {
    const told = form.querySelector('[data-told]'), bar = form.querySelector('progress');
    const button = form.querySelector('button');
    button.disabled = true;
    bar.hidden = false;
    try {
      while (form.isConnected) {
        const found = await (await window.worldeval.fetch(`data/export/${form.dataset.export}`)).json();
        if (found.of) { bar.max = found.of; bar.value = found.done; }
        told.textContent = found.busy
          ? `Writing ${found.name}: ${found.of ? `${found.done} of ${found.of} episodes` : 'beginning'} …` : found.told;
        told.className = found.failed ? 'we-error' : '';
        if (!found.busy) break;
        await new Promise(done => setTimeout(done, 400));
      }
    } catch (error) { refuse(told, error); }
    bar.hidden = true;
    button.disabled = false;
  }
  function refuse(told, error) {
    told.textContent = error.message;
    told.className = 'we-error';
  }

  document.addEventListener('submit', async event => {
    const form = event.target.closest('form[data-export]');
    if (!form) return;
    event.preventDefault();
    const query = new URLSearchParams(new FormData(form));
    try {
      await window.worldeval.fetch(`data/export/${form.dataset.export}?${query}`, {method: 'POST'});
    } catch (error) { refuse(form.querySelector('[data-told]'), error); return; }
    follow(form);
  });
  document.addEventListener('we:pane', event => {
    for (const form of event.detail.querySelectorAll('form[data-export][data-busy]')) follow(form);
  });
})();
