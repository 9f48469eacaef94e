from __future__ import annotations

import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from worldeval.errors import ConfigError, DataError, StoreError
from worldeval.ranking.judged_rates import JudgeCalibration
from worldeval.ranking.leaderboard import build_leaderboard
from worldeval.reports.ranking.clips import (
    BEST,
    SUREST_FAILURES,
    SUREST_SUCCESSES,
    WORST,
    Clip,
    choose_rollouts,
)
from worldeval.reports.ranking.forest import forest_svg
from worldeval.reports.ranking.page import write_report
from worldeval.reports.ranking.pairs import pairs_section
from worldeval.reports.ranking.scatter import save_scatter_png, scatter_svg
from worldeval.types import Outcome

MP4 = b"\x00\x00\x00\x18ftypisom" + bytes(40)
EVIL = '<script>alert("x")</script> $x & #1b1f24'


def table(rates: dict[str, int], world: str, shift: int = 0) -> pd.DataFrame:
    """Ten rollouts on two tasks a policy, the first ``rates[policy]`` of which succeed."""
    return pd.DataFrame(
        [
            {
                "policy": policy,
                "task": ("push", "pull")[number % 2],
                "start_id": f"s{number}",
                "world": world,
                "judge": "judge",
                "outcome": "success" if number < successes + shift else "failure",
                "probability": 0.9 if number < successes + shift else 0.05 + number / 100,
            }
            for policy, successes in rates.items()
            for number in range(10)
        ]
    )


RATES = {"low": 1, EVIL: 4, "high": 8}


class Page(HTMLParser):
    """Tags that are open and balanced, and everything a page could load."""

    VOID = {"meta", "link", "br"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.loads += [
            value for name, value in attrs if name in ("src", "href", "poster", "xlink:href")
        ]

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def clips(tmp_path) -> list[Clip]:
    imagined, real = tmp_path / "imagined.mp4", tmp_path / "real.mp4"
    imagined.write_bytes(MP4)
    real.write_bytes(MP4 + b"real")
    common = {"policy": EVIL, "task": "push", "imagined": imagined, "note": "a <b> note"}
    return [
        Clip(
            group=WORST,
            true=real,
            imagined_outcome=Outcome.SUCCESS,
            true_outcome=Outcome.FAILURE,
            probability=0.875,
            **common,
        ),
        Clip(group=BEST, imagined_outcome=Outcome.UNDECIDED, **common),
    ]


def _write(tmp_path, *, true=True, **options) -> str:
    board = build_leaderboard(
        table(RATES, "imagination"), table(RATES, "metaworld", 1) if true else None
    )
    return write_report(tmp_path / "runs" / "report.html", board, **options).read_text("utf-8")


def test_page_is_whole_and_loads_nothing(tmp_path, clips):
    text = _write(tmp_path, clips=clips, provenance={"seed": 7, "config": {"nfe": 4}})
    page = Page(text)
    assert page.tags.count("video") == 3
    assert page.tags.count("svg") == 2  # intervals, scatter
    outside = [value for value in page.loads if not value.startswith(("data:", "#"))]
    assert not outside
    assert "default-src 'none'" in text
    assert not re.search(r"@import|url\((?!['\"]?#)", text)
    assert "&quot;nfe&quot;: 4" in text and "<dt>seed</dt><dd>7</dd>" in text


def test_all_text_is_escaped(tmp_path, clips):
    text = _write(
        tmp_path,
        clips=clips,
        provenance={"<i>k</i>": "<i>v</i>", "config": {"x": "</pre><i>"}},
        title="<i>t</i>",
    )
    assert "<script>alert" not in text and "<i>" not in text and "a <b> note" not in text
    assert "&lt;script&gt;alert" in text and "&lt;i&gt;t&lt;/i&gt;" in text


def test_plot_follows_the_theme(tmp_path):
    # A policy may be called like TeX or like one of the palette's colours.
    name = "$x_1$ fill: #1b1f24"
    board = build_leaderboard(table({name: 4}, "imagination"), table({name: 5}, "metaworld"))
    svg = scatter_svg(board)
    assert "var(--imagined)" in svg and "var(--ink)" in svg
    assert "stroke: #4a5be0" not in svg
    assert f">{name}</text>" in svg


def test_the_same_board_gives_the_same_page(tmp_path):
    assert _write(tmp_path / "a") == _write(tmp_path / "b")


def test_clips_stand_side_by_side_under_their_groups(tmp_path, clips):
    text = _write(tmp_path, clips=clips)
    assert text.index(WORST) < text.index(BEST)
    assert 'class="success">success</span> (p = 0.88)' in text
    assert 'class="failure">failure</span>' in text
    assert 'class="undecided">undecided</span>' in text


def test_a_missing_clip_is_named(tmp_path, clips):
    clips[0].true.unlink()
    with pytest.raises(DataError, match=r"true clip .*real\.mp4"):
        _write(tmp_path, clips=clips)


def test_a_clip_that_is_no_mp4(tmp_path, clips):
    clips[1].imagined.write_bytes(b"GIF89a......")
    with pytest.raises(DataError, match="no mp4"):
        _write(tmp_path, clips=clips)


def test_an_unwritable_folder(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(StoreError, match="report.html"):
        _write(tmp_path)


def test_sections_appear_only_where_there_is_data(tmp_path):
    everything = ("Imagined against true", "With a few true trials", "distrusted rollouts")
    plain = _write(tmp_path, true=False)
    assert Page(plain).tags.count("svg") == 1
    assert not any(title in plain for title in everything)
    assert "was not checked here" in plain
    imagined, true = table(RATES, "imagination"), table(RATES, "metaworld", 1)
    trust = imagined[["policy", "task", "start_id"]].assign(trusted=True, distrust=0.0)
    trust.loc[3, "trusted"] = False
    board = build_leaderboard(
        imagined,
        true,
        real=true.iloc[::2],
        trust=trust,
        judge_errors=JudgeCalibration(sensitivity=0.9, specificity=0.8, positives=50, negatives=50),
    )
    full = write_report(tmp_path / "full.html", board).read_text("utf-8")
    Page(full)
    assert all(title in full for title in (*everything, "Judge-corrected"))
    for kind in ("imagined", "trusted", "corrected", "joined", "true"):
        assert f'style="stroke:var(--{kind})' in full


def test_one_policy_has_no_pairs(tmp_path):
    board = build_leaderboard(table({"a": 3}, "imagination"))
    text = write_report(tmp_path / "one.html", board).read_text("utf-8")
    Page(text)
    assert "Who is better" not in text and "What it would take" not in text


def test_nothing_decided_is_a_page_too(tmp_path):
    board = build_leaderboard(table(RATES, "imagination").assign(outcome="undecided"))
    text = write_report(tmp_path / "none.html", board).read_text("utf-8")
    Page(text)
    assert "nothing can be ranked" in text and "Undecided" in text


def test_warnings_about_the_agreement_stand_out(tmp_path):
    text = _write(tmp_path)
    assert '<p class="notes">3 policies cannot support a correlation' in text


def test_the_matrix_says_how_sure_each_difference_is():
    rates = {"high": 10, "mid": 9, "low": 0}
    matrix = pairs_section(build_leaderboard(table(rates, "imagination")))
    assert matrix.count('<td class="open"') == 1 and "(+10)" in matrix
    assert matrix.count('<td class="ahead"') == 2
    assert "high minus low: +100 points" in matrix and "10 start states" in matrix
    Page(matrix)


def test_intervals_are_drawn_where_the_rates_are():
    svg = forest_svg(build_leaderboard(table({"a": 5}, "imagination")))
    left, right = 190, 960 - 24
    middle = (left + right) / 2
    assert f'cx="{middle:.1f}"' in svg
    assert svg.count("25 %") == 1


def test_an_undecodable_file_name_can_be_shown(tmp_path):
    assert "<dd>runs/a?</dd>" in _write(tmp_path, provenance={"folder": "runs/a\udc80"})


def test_png_for_a_readme(tmp_path):
    board = build_leaderboard(table(RATES, "imagination"), table(RATES, "metaworld", 1))
    path = save_scatter_png(board, tmp_path / "plots" / "scatter.png", theme="dark", dpi=40)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_best_agree_and_worst_differ():
    imagined, real = table(RATES, "imagination"), table(RATES, "metaworld", 1)
    chosen = choose_rollouts(imagined, real, per_group=2)
    for rollout in chosen:
        same = rollout.imagined_outcome is rollout.true_outcome
        assert rollout.group == (BEST if same else WORST)
    assert [rollout.group for rollout in chosen] == [BEST, BEST, WORST, WORST]
    # Only one rollout a policy differs: the one just beyond its imagined successes.
    assert {(r.policy, r.start_id) for r in chosen[2:]} <= {
        (policy, f"s{successes}") for policy, successes in RATES.items()
    }
    assert len({rollout.policy for rollout in chosen[:2]}) == 2
    assert {rollout.imagined_outcome for rollout in chosen[:2]} == {
        Outcome.SUCCESS,
        Outcome.FAILURE,
    }


def test_without_truth_the_surest_are_chosen():
    imagined = table({"a": 2}, "imagination")
    imagined.loc[1, "probability"] = 0.99
    chosen = choose_rollouts(imagined, per_group=1)
    assert [(r.group, r.start_id) for r in chosen] == [
        (SUREST_SUCCESSES, "s1"),
        (SUREST_FAILURES, "s2"),
    ]
    assert chosen[0].probability == 0.99


def test_choosing_without_probabilities():
    imagined = table({"a": 2}, "imagination").drop(columns="probability")
    assert [r.probability for r in choose_rollouts(imagined, per_group=1)] == [None, None]


def test_choosing_none():
    with pytest.raises(ConfigError, match="per_group is 0"):
        choose_rollouts(table(RATES, "imagination"), per_group=0)
