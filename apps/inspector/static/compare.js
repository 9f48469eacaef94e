// Compare: two sides of the player laid over each other, as a wipe or as their difference.
(() => {
  'use strict';
  class Over {
    constructor(root, player) {
      this.root = root;
      this.player = player;
      this.find = name => root.querySelector(name);
      this.canvas = this.find('canvas');
      const sides = player.sides, names = sides.map(side => side.facts.title);
      const fill = (name, texts, chosen) => {
        this.find(name).replaceChildren(...texts.map((text, i) => {
          const option = document.createElement('option');
          option.value = i;
          option.textContent = text;
          option.selected = i === chosen;
          return option;
        }));
      };
      fill('[data-view]', sides[0].facts.views, 0);
      fill('[data-one]', names, 0);
      fill('[data-two]', names, 1);
      for (const input of root.querySelectorAll('select, input'))
        input.addEventListener('input', () => this.draw());
      this.canvas.addEventListener('pointerdown', event => {
        this.canvas.setPointerCapture(event.pointerId);
        this.drag(event);
      });
      this.canvas.addEventListener('pointermove', event => { if (event.buttons) this.drag(event); });
      player.element.addEventListener('we:frame', () => this.draw());
      for (const side of sides) side.video.addEventListener('seeked', () => setTimeout(() => this.draw()));
      this.draw();
      root.dataset.ready = 'yes';
    }
    drag(event) {
      const box = this.canvas.getBoundingClientRect();
      this.find('[data-wipe]').value = Math.round(1000 * (event.clientX - box.left) / box.width);
      this.draw();
    }
    draw() {
      const value = name => Number(this.find(name).value);
      const view = value('[data-view]');
      const [one, two] = ['[data-one]', '[data-two]'].map(n => this.player.sides[value(n)].canvases[view]);
      if (!one || !two || !one.width) return;
      const {canvas} = this, wipe = this.find('[data-mode]').value === 'wipe';
      canvas.width = one.width;
      canvas.height = one.height;
      const pen = canvas.getContext('2d', {willReadFrequently: true});
      this.find('[data-wipe]').disabled = !wipe;
      if (wipe) {
        const at = Math.round(value('[data-wipe]') / 1000 * canvas.width);
        pen.drawImage(one, 0, 0);
        pen.save();
        pen.beginPath();
        pen.rect(at, 0, canvas.width - at, canvas.height);
        pen.clip();
        pen.drawImage(two, 0, 0, canvas.width, canvas.height);
        pen.restore();
        pen.fillStyle = '#fff';
        pen.fillRect(at - .5, 0, 1, canvas.height);
        this.find('[data-told]').textContent = 'Drag over the picture: left of the line the one, right of it the other.';
        return;
      }
      pen.drawImage(one, 0, 0);
      const a = pen.getImageData(0, 0, canvas.width, canvas.height);
      pen.drawImage(two, 0, 0, canvas.width, canvas.height);
      const b = pen.getImageData(0, 0, canvas.width, canvas.height);
      let sum = 0;
      for (let i = 0; i < a.data.length; i += 4) {
        const d = (Math.abs(a.data[i] - b.data[i]) + Math.abs(a.data[i + 1] - b.data[i + 1])
          + Math.abs(a.data[i + 2] - b.data[i + 2])) / 3;
        sum += d;
        const bright = Math.min(1, d / 96); // dark where they are the same, through blue to white
        b.data[i] = 255 * Math.max(0, 2 * bright - 1);
        b.data[i + 1] = 200 * bright;
        b.data[i + 2] = 255 * Math.min(1, 2 * bright);
      }
      pen.putImageData(b, 0, 0);
      const mean = sum / (a.data.length / 4);
      canvas.dataset.difference = mean.toFixed(2);
      this.find('[data-told]').textContent =
        `Dark where the two are the same; on average ${mean.toFixed(1)} of 255 apart in this frame.`;
    }
  }

  document.addEventListener('we:pane', event => {
    const root = event.detail.querySelector('[data-over]');
    const element = root && event.detail.querySelector('.we-player');
    if (!element) return;
    const wait = setInterval(() => {
      if (!root.isConnected) return clearInterval(wait);
      if (!element.player || !element.classList.contains('ready')) return;
      clearInterval(wait);
      new Over(root, element.player);
    }, 50);
  });
})();
