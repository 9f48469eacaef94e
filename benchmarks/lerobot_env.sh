#!/bin/sh
# Makes two environments with the real LeRobot (0.4.4 for v3.0, 0.3.3 for v2.1; 3 GB each, CPU only)
# and runs the tests of exports in them:  sh benchmarks/lerobot_env.sh FOLDER
set -e
folder=$(mkdir -p "$1" && cd "$1" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
common="av>=15,<16 jsonlines packaging<26 draccus==0.10.0 einops termcolor gymnasium<2 deepdiff
    pyarrow pandas imageio opencv-python-headless tqdm accelerate pillow diffusers pyserial
    huggingface-hub<1"
make_env() { # NAME LEROBOT DATASETS
    [ -e "$folder/$1/ready" ] && return
    python3 -m venv "$folder/$1"
    pip="$folder/$1/bin/pip install --quiet"
    $pip torch==2.13.0
    # Their own pins are of older torch; the CPU build of 2.13 serves (checked by these tests).
    $pip --no-deps torchvision==0.28.0 torchcodec==0.13.0 "lerobot==$2"
    $pip "$3" $common
    # worldeval itself, from the clone: what it needs beside that
    $pip tyro safetensors scipy msgpack websockets
    touch "$folder/$1/ready"
}
make_env v30 0.4.4 "datasets>=4,<5"
make_env v21 0.3.3 "datasets==3.6.0"
# torchcodec wants FFmpeg's libraries: those of PyAV serve where the system has none.
libs="$folder/ffmpeg"
mkdir -p "$libs"
for file in "$folder"/v30/lib/python3*/site-packages/av.libs/lib*.so.*; do
    name=$(basename "$file")
    number=${name##*.so.}
    ln -sf "$file" "$libs/${name%%-*}.so.${number%%.*}"
done
cd "$root"
WORLDEVAL_LEROBOT="$folder/v30/bin/python" WORLDEVAL_LEROBOT_V21="$folder/v21/bin/python" \
    WORLDEVAL_LEROBOT_LIBS="$libs" python -m pytest -q -s -m heavy tests/data/test_lerobot_real.py
