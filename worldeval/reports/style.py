"""The look and the one script of ``report.html``. Text only; nothing is loaded from elsewhere.

Colours are variables in two sets, so that the page follows the reader's light or dark setting.
``--imagined`` and ``--true`` mean the same in every figure.
"""

from __future__ import annotations

from worldeval.reports.ranking.scatter import PALETTES


def _variables(theme: str) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in PALETTES[theme].items())


STYLE = (
    f":root{{color-scheme:light dark;{_variables('light')}"
    "--page:#f5f6f8;--good:#1f8a5b;--bad:#c8443c}\n"
    f"@media(prefers-color-scheme:dark){{:root{{{_variables('dark')}"
    "--page:#111418;--good:#56c596;--bad:#f0837b}}\n"
    """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);line-height:1.5;
 font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1120px;margin:0 auto;padding:40px 20px 64px}
.eyebrow{color:var(--soft);font-size:.8rem;letter-spacing:.08em;text-transform:uppercase;margin:0}
h1{font-size:clamp(1.5rem,4vw,2.1rem);line-height:1.2;margin:.2em 0 .5em;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:0 0 4px}
h3{font-size:.95rem;margin:20px 0 8px;color:var(--soft);font-weight:600}
.lead{font-size:1.12rem;max-width:66ch;margin:0 0 16px;overflow-wrap:anywhere}
.evidence{max-width:76ch;margin:0 0 16px;padding-left:1.2em}
.evidence li{margin-bottom:4px;overflow-wrap:anywhere}
.hint{color:var(--soft);font-size:.88rem;margin:0 0 14px;max-width:80ch}
.chips{display:flex;flex-wrap:wrap;gap:8px;margin:0;padding:0;list-style:none}
.chips li{border:1px solid var(--line);background:var(--card);border-radius:99px;
 padding:3px 12px;font-size:.85rem;color:var(--soft)}
.chips b{color:var(--ink)}
section{background:var(--card);border:1px solid var(--line);border-radius:14px;
 padding:22px;margin-top:20px}
.scroll{overflow-x:auto;margin:0 -6px;padding:0 6px}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th{font-weight:600;color:var(--soft);font-size:.8rem;text-align:left;white-space:nowrap}
th,td{padding:8px 10px;border-bottom:1px solid var(--line);vertical-align:middle}
tbody tr:last-child>*{border-bottom:0}
.num{text-align:right;white-space:nowrap}
.soft{color:var(--soft)}
span.name,th.name{font-weight:600;color:var(--ink);font-size:.9rem;max-width:16em;
 overflow-wrap:anywhere;white-space:normal;min-width:8em}
span.name{display:inline-block}
.letters{font-weight:650;letter-spacing:.06em}
.forest{display:block;width:100%;min-width:540px;height:auto;margin-bottom:14px}
.forest .rule{stroke:var(--line);stroke-width:1;fill:none}
.forest .span{stroke-width:3.5;stroke-linecap:round;opacity:.45;fill:none}
.forest text{fill:var(--soft);font-size:12.5px}
.forest .policy{fill:var(--ink);font-weight:600;font-size:14px}
.key{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:.85rem;color:var(--soft);margin:0 0 10px}
.key span::before{content:"";display:inline-block;width:10px;height:10px;border-radius:50%;
 margin-right:6px;background:var(--imagined)}
.key .trusted::before{width:6px;height:6px;background:none;border:2px solid var(--trusted)}
.key .corrected::before{background:var(--corrected);border-radius:1px}
.key .joined::before{background:var(--joined);border-radius:0;
 clip-path:polygon(50% 0,100% 100%,0 100%)}
.key .true::before{background:var(--true);border-radius:2px;transform:rotate(45deg) scale(.8)}
.matrix{width:auto}
.matrix th,.matrix td{border:0;padding:3px}
.matrix td{min-width:44px;height:30px;text-align:center;border-radius:5px;font-size:.84rem}
.matrix .up{vertical-align:bottom}
.matrix .up span{writing-mode:vertical-rl;transform:rotate(180deg);max-height:11em;
 color:var(--ink);overflow:hidden;text-overflow:ellipsis}
.matrix .name{position:sticky;left:0;background:var(--card);z-index:1}
.matrix .ahead,.matrix .behind{font-weight:650}
.matrix .ahead{background:color-mix(in srgb,var(--imagined) 24%,var(--card))}
.matrix .behind{background:color-mix(in srgb,var(--bad) 22%,var(--card))}
.matrix .open{color:var(--soft);background:color-mix(in srgb,var(--line) 40%,var(--card))}
.two{display:grid;grid-template-columns:minmax(0,1.15fr) minmax(0,1fr);gap:26px;align-items:start}
.two svg{width:100%;height:auto;display:block}
@media(max-width:820px){.two{grid-template-columns:minmax(0,1fr)}section{padding:16px}}
.figures{display:grid;gap:12px}
.figure{border:1px solid var(--line);border-radius:10px;padding:12px 14px}
.figure .top{display:flex;flex-wrap:wrap;justify-content:space-between;gap:2px 12px;
 align-items:baseline}
.figure .label{font-weight:600;font-size:.92rem}
.figure .value{font-size:1.3rem;font-weight:650;font-variant-numeric:tabular-nums}
.figure .value small{font-size:.8rem;font-weight:400;color:var(--soft)}
.figure p{margin:2px 0 0;color:var(--soft);font-size:.86rem}
.heat td{padding:4px}
.heat th.task{white-space:normal;min-width:84px;max-width:130px;vertical-align:bottom;
 overflow-wrap:anywhere}
.heat .name{position:sticky;left:0;background:var(--card);z-index:1}
.cell{display:grid;grid-template-columns:1fr 1fr;border-radius:6px;overflow:hidden;
 text-align:center;font-size:.82rem;min-width:78px}
.cell{border:1px solid var(--line)}.cell span{padding:5px 2px;color:var(--soft)}
.cell.one{grid-template-columns:1fr;min-width:52px}
.cell .im,.cell .tr{color:var(--ink)}.cell sup{font-size:.7em;color:var(--soft);margin-left:1px}
.cell .im{background:color-mix(in srgb,var(--imagined) calc(7% + var(--v)*55%),var(--card))}
.cell .tr{background:color-mix(in srgb,var(--true) calc(7% + var(--v)*55%),var(--card))}
.cell.far{outline:2px solid var(--bad);outline-offset:-1px}
.clips{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,440px),1fr));gap:14px}
.clip{border:1px solid var(--line);border-radius:10px;padding:12px;margin:0;min-width:0}
.clip .pair{display:grid;gap:8px}
.clip video{width:100%;display:block;border-radius:6px;background:#000}
.clip .side{display:flex;justify-content:space-between;font-size:.8rem;color:var(--soft)}
.clip figcaption{display:flex;justify-content:space-between;align-items:start;gap:10px;
 margin-bottom:8px;font-size:.88rem;overflow-wrap:anywhere}
.clip button{font:inherit;font-size:.8rem;border:1px solid var(--line);border-radius:99px;
 background:transparent;color:var(--ink);padding:2px 12px;cursor:pointer;white-space:nowrap}
.clip button:hover{border-color:var(--soft)}
.success{color:var(--good)}.failure{color:var(--bad)}
.notes{border-left:3px solid var(--true);padding:2px 14px;margin:14px 0 0;font-size:.9rem}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:4px 18px;margin:0;
 font-size:.88rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
pre{overflow:auto;max-height:420px;background:var(--page);border-radius:8px;padding:12px;
 font-size:.8rem;margin:8px 0 0}
details{margin-top:12px}summary{cursor:pointer;color:var(--soft);font-size:.88rem}
footer{color:var(--soft);font-size:.82rem;margin-top:20px}
@media print{body{background:#fff}section{break-inside:avoid}}
"""
)


def scoped_style(selector: str) -> str:
    """The same look for a part of another page: nothing outside ``selector`` is touched."""
    inner = STYLE.replace(":root{", ":scope{").replace("\nbody{", "\n:scope{")
    return f"@scope ({selector}) {{\n{inner}\n}}\n"


SCRIPT = """
for (const clip of document.querySelectorAll('.clip')) {
  const videos = [...clip.querySelectorAll('video')];
  const button = clip.querySelector('button');
  // Both start together and wait for each other, so that the same moment is seen side by side.
  const play = fresh => {
    for (const v of videos) { if (fresh) v.currentTime = 0; if (!v.ended || fresh) v.play(); }
    button.textContent = 'Pause';
  };
  const pause = () => { videos.forEach(v => v.pause()); button.textContent = 'Play'; };
  for (const v of videos)
    v.addEventListener('ended', () => { if (videos.every(w => w.ended)) play(true); });
  button.addEventListener('click', () => button.textContent === 'Play' ? play(false) : pause());
  new IntersectionObserver(([seen]) => {
    const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
    if (!seen.isIntersecting) pause(); else if (!still) play(false);
  }).observe(clip);
}
"""
