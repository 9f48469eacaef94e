// Label: one rollout after the other, by keys. The server knows rollouts by blind names only here.
(() => {
  'use strict';
  const KEYS = {s: 'success', f: 'failure', u: 'undecided', 1: '25', 2: '50', 3: '75'};
  const NAME = 'worldeval-rater';

  class Labels {
    constructor(root) {
      this.root = root;
      root.labels = this;
      this.find = name => root.querySelector(name);
      this.run = root.dataset.label;
      this.skipped = [];
      this.item = null;
      this.busy = false;
      const rater = this.find('[data-rater]');
      rater.value = localStorage.getItem(NAME) || '';
      rater.addEventListener('change', () => {
        localStorage.setItem(NAME, this.rater);
        this.skipped = [];
        this.next();
      });
      rater.addEventListener('keydown', event => {
        if (event.key === 'Enter') { event.preventDefault(); rater.blur(); }
      });
      this.find('[data-comment]').addEventListener('keydown', event => {
        if (event.key === 'Enter' || event.key === 'Escape') { event.preventDefault(); event.target.blur(); }
      });
      for (const button of root.querySelectorAll('[data-say]'))
        button.addEventListener('click', () => this.say(button.dataset.say));
      this.find('[data-undo]').addEventListener('click', () => this.undo());
      this.find('[data-skip]').addEventListener('click', () => this.skip());
      this.next();
      this.raters();
    }
    get rater() { return this.find('[data-rater]').value.trim(); }
    words(text, wrong = false) {
      this.find('.we-b-words').textContent = text;
      this.find('.we-b-words').classList.toggle('we-l-wrong', wrong);
    }
    async json(path, body) {
      const options = body && {method: 'POST', body: JSON.stringify(body),
        headers: {'content-type': 'application/json'}};
      return (await window.worldeval.fetch(path, options)).json();
    }
    async next(blind = null) {
      if (!this.rater) {
        this.words('Type your name above; labels are kept under it.');
        this.find('.we-b-film').replaceChildren();
        return;
      }
      try {
        const names = new URLSearchParams({run: this.run, rater: this.rater, skip: this.skipped.join(',')});
        const told = await this.json(`label/next?${names}`);
        this.item = blind ? {...told.item, blind} : told.item;
        this.find('.we-b-meter').style.setProperty('--v', told.of ? 1 - told.left / told.of : 0);
        this.find('.we-b-meter').title = `${told.of - told.left} of ${told.of} labelled by you`;
        this.root.dataset.left = told.left;
        if (!this.item) {
          this.words(`All ${told.of} rollouts are labelled. Thank you.`);
          this.find('.we-b-film').replaceChildren();
          return;
        }
        const player = document.createElement('div');
        player.className = 'we-player';
        player.dataset.src = `label/rollout/${this.run}/${this.item.blind}`;
        const box = this.find('.we-b-film');
        box.replaceChildren(player);
        document.dispatchEvent(new CustomEvent('we:pane', {detail: box}));
        this.words(`${this.item.instruction}`);
        this.root.dataset.blind = this.item.blind;
        player.addEventListener('we:frame', () => {}, {once: true});
        const started = setInterval(() => { // it plays by itself once it is there
          if (!player.isConnected) return clearInterval(started);
          if (player.classList.contains('ready')) { clearInterval(started); player.player.play(); }
        }, 60);
      } catch (error) { this.words(error.message, true); }
    }
    async say(value) {
      if (this.busy || !this.item) return;
      if (!this.rater) return this.words('Type your name above; labels are kept under it.');
      this.busy = true;
      const part = /^\d+$/.test(value);
      try {
        await this.json('label/say', {run: this.run, blind: this.item.blind, rater: this.rater,
          outcome: part ? 'failure' : value, credit: part ? Number(value) / 100 : null,
          artefact: this.find('[data-artefact]').checked, comment: this.find('[data-comment]').value});
        this.find('[data-artefact]').checked = false;
        this.find('[data-comment]').value = '';
        const button = this.find(`[data-say="${value}"]`);
        button.classList.add('said');
        setTimeout(() => button.classList.remove('said'), 300);
        await this.next();
        this.raters();
      } catch (error) { this.words(error.message, true); } finally { this.busy = false; }
    }
    async undo() {
      if (this.busy || !this.rater) return;
      this.busy = true;
      try {
        const told = await this.json('label/undo', {run: this.run, rater: this.rater});
        if (told.blind) await this.next(told.blind); else this.words('There is no label of yours to take back.');
        this.raters();
      } catch (error) { this.words(error.message, true); } finally { this.busy = false; }
    }
    skip() {
      if (!this.item || this.busy) return;
      this.skipped.push(this.item.blind);
      this.next();
    }
    async raters() {
      try {
        const html = await (await window.worldeval.fetch(`part/raters?run=${this.run}`)).text();
        this.find('.we-b-table').innerHTML = html;
      } catch (error) { this.find('.we-b-table').textContent = error.message; }
    }
  }

  document.addEventListener('keydown', event => {
    const root = [...document.querySelectorAll('[data-label]')].find(r => r.offsetParent !== null && r.labels);
    if (!root || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target.closest('input:not([type=checkbox]):not([type=range]), textarea, select, [role=tab]')) return;
    const labels = root.labels, key = event.key.toLowerCase();
    if (key in KEYS) labels.say(KEYS[key]);
    else if (key === 'z') labels.undo();
    else if (key === 'n') labels.skip();
    else if (key === 'm') labels.find('[data-comment]').focus();
    else if (key === 'a') { const box = labels.find('[data-artefact]'); box.checked = !box.checked; }
    else return;
    event.preventDefault();
  });
  document.addEventListener('we:pane', event => {
    const root = event.detail.querySelector('[data-label]');
    if (root && !root.labels) new Labels(root);
  });
})();
