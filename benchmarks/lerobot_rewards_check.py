"""LeRobot's reward models, tiny and random, saved by LeRobot, asked through ours and by hand.

    python benchmarks/lerobot_rewards_check.py FOLDER     in an environment with lerobot 0.6

Run by tests/judging/test_lerobot_reward_real.py; prints one JSON object. Nothing is downloaded: the
vision-language model and CLIP are made here, with all their files.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.processor import NormalizerProcessorStep
from lerobot.rewards import RobometerConfig, SARMConfig, TOPRewardConfig, make_reward_model
from lerobot.rewards.robometer.modeling_robometer import decode_progress_outputs
from lerobot.rewards.sarm.processor_sarm import make_sarm_pre_post_processors
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    Qwen2TokenizerFast,
    Qwen2VLImageProcessorFast,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from worldeval.judging.lerobot_reward import LeRobotRewardJudge, RewardSettings
from worldeval.types import Episode

KEY = "observation.images.top"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
SPECIAL += ["<|image_pad|>", "<|video_pad|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}"
    "{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif c.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_vlm(folder: Path) -> Path:
    """Qwen3-VL of two layers with a byte tokenizer, as transformers saves it."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    tokens.add_special_tokens(SPECIAL)
    tokenizer = Qwen2TokenizerFast(
        tokenizer_object=tokens, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    number = tokenizer.convert_tokens_to_ids
    torch.manual_seed(0)
    config = Qwen3VLConfig(
        text_config={
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 64,
            "vocab_size": len(tokenizer), "max_position_embeddings": 8192,
            "rope_scaling": {"rope_type": "default", "mrope_section": [2, 1, 1]},
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "num_heads": 4, "intermediate_size": 64,
            "out_hidden_size": 32, "patch_size": 16, "spatial_merge_size": 2,
            "temporal_patch_size": 2, "deepstack_visual_indexes": [0, 1],
            "num_position_embeddings": 256,
        },
        image_token_id=number("<|image_pad|>"), video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
    )  # fmt: skip
    Qwen3VLForConditionalGeneration(config).save_pretrained(folder)
    sizes = {"patch_size": 16, "merge_size": 2, "temporal_patch_size": 2}
    Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessorFast(**sizes),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**sizes),
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return folder


def tiny_clip(folder: Path) -> None:
    """CLIP of one layer, where SARM looks for it: openai/clip-vit-base-patch32, seen from here."""
    folder.mkdir(parents=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(c + "</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    layer = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    layer["num_attention_heads"] = 4
    torch.manual_seed(1)
    ends = {"eos_token_id": len(words) - 1, "bos_token_id": len(words) - 2}
    config = CLIPConfig(
        text_config={**layer, "vocab_size": len(words), "max_position_embeddings": 77, **ends},
        vision_config={**layer, "image_size": 32, "patch_size": 16},
        projection_dim=512,
    )
    CLIPModel(config).save_pretrained(folder)
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(image_processor=pictures, tokenizer=tokenizer).save_pretrained(folder)


def episode(seed: int, length: int = 30) -> Episode:
    rng = np.random.default_rng(seed)
    return Episode(
        key=f"e{seed}",
        task="reach",
        instruction="reach the cup",
        views=("front", "top"),
        frames=rng.integers(0, 256, (length, 2, 64, 64, 3), np.uint8),
        poses=rng.normal(size=(length, 4)).astype(np.float32),
        actions=np.zeros((length - 1, 1, 4), np.float32),
    )


def shown(one: Episode, frames: tuple[int, ...]) -> torch.Tensor:
    pictures = one.frames[list(frames), one.views.index("top")]
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)[None]


def robometer(root: Path, vlm: Path) -> dict[str, Any]:
    config = RobometerConfig(
        pretrained_path=None, base_model_id=str(vlm), torch_dtype="float32", image_key=KEY,
        device="cpu", push_to_hub=False,
    )  # fmt: skip
    torch.manual_seed(2)
    model = make_reward_model(config).eval()
    with torch.no_grad():  # a random head says the same of everything
        model.success_head[-1].weight.mul_(40)
    model.save_pretrained(root / "robometer")
    judge = LeRobotRewardJudge(str(root / "robometer"))
    found, chances = [], []
    for seed in range(6):
        one = episode(seed)
        value, frames = judge.reward(one)
        batch = judge._before({KEY: shown(one, frames), "task": [one.instruction]})
        prefix = "observation.robometer."
        inputs = {k.removeprefix(prefix): v for k, v in batch.items() if k.startswith(prefix)}
        with torch.no_grad():
            logits = model._compute_rbm_logits(inputs)  # the model before it was saved
        said = decode_progress_outputs(*logits, is_discrete_mode=True)["success_probs"]
        chances.append(float(said[0][-1]))
        found.append(value == float(chances[-1] > 0.5))
        assert frames == tuple(np.rint(np.linspace(0, 29, 8)).astype(int))
    # The same weights with the threshold among what they say: both outcomes.
    at = float(np.median(chances))
    among = LeRobotRewardJudge(str(root / "robometer"), RewardSettings(threshold=at))
    outcomes = [str(verdict.outcome) for verdict in among.judge([episode(s) for s in range(6)])]
    expected = ["success" if chance > at else "failure" for chance in chances]
    return {"equal": all(found) and outcomes == expected, "outcomes": sorted(set(outcomes))}


def topreward(root: Path, vlm: Path) -> dict[str, Any]:
    config = TOPRewardConfig(vlm_name=str(vlm), torch_dtype="float32", image_key=KEY, device="cpu")
    model = make_reward_model(config).eval()
    model.save_pretrained(root / "topreward")
    judge = LeRobotRewardJudge(str(root / "topreward"), RewardSettings(threshold=-5.0))
    equal, values = [], []
    for seed in range(3):
        one = episode(seed)
        value, frames = judge.reward(one)
        batch = judge._before({KEY: shown(one, frames), "task": [one.instruction]})
        equal.append(value == float(model.compute_reward(batch)[0]))
        values.append(value)
    outcomes = []
    for at in (values[-1] - 0.01, values[-1] + 0.01):
        other = LeRobotRewardJudge(str(root / "topreward"), RewardSettings(threshold=at))
        outcomes.append(str(other.judge([one])[0].outcome))
    return {"equal": all(equal), "values": values, "outcomes": outcomes}


def sarm(root: Path) -> dict[str, Any]:
    config = SARMConfig(
        hidden_dim=48, num_heads=4, num_layers=1, device="cpu", image_key=KEY, frame_gap=30
    )
    torch.manual_seed(3)
    model = make_reward_model(config).eval()
    rng = np.random.default_rng(0)
    stats = {
        "observation.state": {
            "mean": rng.normal(size=4).astype(np.float32),
            "std": rng.uniform(0.5, 2, 4).astype(np.float32),
        }
    }
    before, _ = make_sarm_pre_post_processors(config, dataset_stats=stats)
    out = root / "sarm"
    model.save_pretrained(out)
    (normalise,) = (s for s in before.steps if isinstance(s, NormalizerProcessorStep))
    from safetensors.torch import save_file

    # As the pipeline's own save_pretrained names and writes the step's state.
    name = "policy_preprocessor_step_2_normalizer_processor.safetensors"
    save_file(normalise.state_dict(), out / name)
    judge = LeRobotRewardJudge(str(out), RewardSettings(threshold=0.5, gap=3))
    for step in before.steps:
        if hasattr(step, "eval"):
            step.eval()
    equal, values = [], []
    for seed in range(3):
        one = episode(seed)
        value, _ = judge.reward(one)
        window = [17, 20, 23, 26, 29, 29, 29, 29, 29, 26, 23, 20, 17]
        batch = before(
            {
                KEY: shown(one, tuple(window)),
                "observation.state": torch.from_numpy(one.poses[window])[None],
                "task": [one.instruction],
                "index": torch.tensor([29]),
                "episode_index": torch.tensor([0]),
            }
        )
        whole = model.calculate_rewards(
            batch["text_features"], batch["video_features"], batch["state_features"],
            return_all_frames=True,
        )  # fmt: skip
        equal.append(value == float(whole[0][8]))
        values.append(value)
    return {"equal": all(equal), "values": values}


def main() -> None:
    root = Path(sys.argv[1])
    root.mkdir(parents=True, exist_ok=True)
    os.chdir(root)  # where openai/clip-vit-base-patch32 is a folder
    tiny_clip(root / "openai/clip-vit-base-patch32")
    vlm = tiny_vlm(root / "vlm")
    found = {"robometer": robometer(root, vlm), "topreward": topreward(root, vlm)}
    found["sarm"] = sarm(root)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
