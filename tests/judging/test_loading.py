import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from worldeval.data import checkpoint
from worldeval.errors import CheckpointError, ConfigError, DataError
from worldeval.judging.classifier import SuccessClassifier
from worldeval.judging.human import HumanJudge, append_label
from worldeval.judging.loading import load_judge
from worldeval.judging.network import JudgeConfig, JudgeNetwork
from worldeval.judging.probability import Calibration
from worldeval.judging.progress import ProgressJudge


def test_the_kind_of_a_checkpoint_says_which_judge_it_is(tmp_path: Path) -> None:
    shape = {"views": ("a",), "image_size": (16, 16), "channels": (8, 8, 8), "hidden": 8}
    SuccessClassifier(JudgeNetwork(JudgeConfig(**shape)), Calibration()).save(tmp_path / "one")
    several = JudgeNetwork(JudgeConfig(**shape, outputs=3))
    ProgressJudge(several, Calibration(), bins=(0, 1, 2)).save(tmp_path / "two")
    assert isinstance(load_judge(tmp_path / "one"), SuccessClassifier)
    progress = load_judge(str(tmp_path / "two"))
    assert isinstance(progress, ProgressJudge) and progress.bins.starts == (0, 1, 2)
    checkpoint.save(tmp_path / "three", kind="policy-bc", config={}, tensors={"a": np.zeros(1)})
    with pytest.raises(CheckpointError, match="holds a 'policy-bc' checkpoint, expected one of"):
        load_judge(tmp_path / "three")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_judge(tmp_path / "none")


def test_labels_are_a_judge(tmp_path: Path) -> None:
    append_label(tmp_path / "labels.csv", key="k", rater="ann", outcome="success")
    judge = load_judge(f"human:{tmp_path / 'labels.csv'}")
    assert isinstance(judge, HumanJudge) and judge.name.startswith("human@")
    with pytest.raises(DataError, match="there is no table at"):
        load_judge(f"human:{tmp_path / 'none.csv'}")


@pytest.mark.parametrize("uri", ["humans:labels.csv", "http://host/v1", "panel:a,b"])
def test_what_is_no_judge_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"expected the folder of a checkpoint, human:LABELS"):
        load_judge(uri)


def test_tables_people_and_panels_need_no_torch() -> None:
    code = (
        "import sys\nimport worldeval.judging.tables, worldeval.judging.human, "
        "worldeval.judging.panel, worldeval.judging.loading\n"
        "print(*sorted({'torch', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
