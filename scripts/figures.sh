#!/usr/bin/env bash
# Runs the comparisons that docs/ shows and copies their tables and plots there.
#
#   scripts/figures.sh PROGRAM [NAME…]    all of them, or those named
#
# Seeds and threads are fixed. All but `seconds` run on one thread, so that two cores can compute
# two of them side by side: answers do not depend on the number of threads. Raw rows stay in
# $CACHE/compare, CACHE being $XDG_CACHE_HOME/aisp-llama or ~/.cache/aisp-llama; what is finished
# there is not computed again, what was cut off goes on.
set -euo pipefail

program=$(realpath "$1")
shift
repository=$(realpath "$(dirname "$0")/..")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/aisp-llama
prompts=$repository/examples/prompts
smollm=$cache/models/SmolLM2-135M-Instruct.Q4_0.gguf
gemma=$cache/models/gemma-3-270m.Q4_K_M.gguf
film=$cache/models/film-review-reward.gguf
threads=1

# Settings from the tuning figures below. `args` is in the comparisons with its published weight
# as well.
drawn=temp=0.8:top-p=0.9
all=temp=1:top-p=1
misvo=misvo:$all:top-k=0:min-p=0:step=3:lambda=0.1
value=re-control:value=value.safetensors:$all
steered=$value:step=1
guided=args:weight=50

# Most tokens of an answer.
length=24

# A comparison into the folder $1, with its tables and plots copied to docs/.
compare() {
    local name=$1
    shift
    "$program" compare --threads "$threads" -n "$length" --output "$name" "$@"
    mkdir -p "$repository/docs/compare/$name"
    cp "$name"/summary.md "$name"/*.svg "$repository/docs/compare/$name/"
}

on_film() { compare "$@" -m "$smollm" -mr "$film"; }
tuning() { on_film "$@" --prompts "$prompts/film-reviews-tuning.jsonl" --seeds 1; }
reviews() { on_film "$@" --prompts "$prompts/film-reviews.jsonl"; }
# The first $2 of the prompts of file $1, half of them where it is not said, in a file of their own
# that it names.
first() {
    head -n "${2:-12}" "$prompts/$1.jsonl" >"first-${2:-12}-$1.jsonl"
    echo "first-${2:-12}-$1.jsonl"
}
half() { on_film "$@" --prompts "$(first film-reviews)"; }

value_network() {
    if [ ! -f value.safetensors ]; then
        "$program" train-value -m "$smollm" -mr "$film" --threads "$threads" \
            --prompts "$prompts/film-reviews-training.jsonl" --responses 16 -n 24 \
            --temp 1 --top-p 1 -o value.part.safetensors >value.txt
        mv value.part.safetensors value.safetensors
    fi
    mkdir -p "$repository/docs/compare"
    cp value.txt "$repository/docs/compare/value.txt"
}

rivals=best-of-n:$drawn,search,aisp,$misvo,$steered,args,$guided
two=best-of-n:$all,search
ours=$two,aisp
parts=best-of-n:$all,search:steer=0:elites=0,search:elites=0,search:steer=0,\
search:steer=0:elites=0:early-rejection=auto,search

# Rewards that say nothing, and that take their time: a hash of the answer, and the letters of its
# words, of twelve at least, after 20 milliseconds.
commands() {
    cat >hash.py <<'END'
import json, sys, zlib
for line in sys.stdin:
    sample = json.loads(line)
    reward = zlib.crc32(sample["response"].encode()) / 2**32
    print(json.dumps({"id": sample["id"], "reward": reward}), flush=True)
END
    cat >slow.py <<'END'
import json, sys, time
for line in sys.stdin:
    sample = json.loads(line)
    words = sample["response"].split()
    time.sleep(0.02)
    reward = sum(map(len, words)) / max(len(words), 12)
    print(json.dumps({"id": sample["id"], "reward": reward}), flush=True)
END
}

# The tokens of so many plain answers.
tokens() { echo "--by tokens --budget $(($1 * length)) --seeds 1"; }

figure() {
    case $1 in
    # The main result, at three lengths; fewer of the prompts at the longer ones, and the two methods
    # that matter there.
    film)
        # shellcheck disable=SC2046
        reviews film $(tokens 256) --methods "$ours"
        ;;
    film-64)
        length=64
        # shellcheck disable=SC2046
        half film-64 $(tokens 256) --methods "$two"
        ;;
    film-128)
        length=128
        # shellcheck disable=SC2046
        on_film film-128 --prompts "$(first film-reviews 5)" $(tokens 256) --methods "$two"
        ;;
    # What a model that did not write the answers makes of them.
    likelihood)
        "$repository/scripts/likelihoods.py" "$program" "$gemma" film \
            "$prompts/film-reviews.jsonl" >"$repository/docs/compare/likelihood.md"
        ;;
    judges) "$repository/scripts/judges.py" "$program" "$smollm" "$prompts/general.jsonl" \
        >"$repository/docs/compare/judges.md" ;;
    answers)
        "$repository/scripts/answers.py" "Film reviews=film=$(first film-reviews 13)" \
            "Film reviews of at most 128 tokens=film-128=$prompts/film-reviews.jsonl" \
            "Film reviews by Gemma 3 270M, of at most 64 tokens=gemma=$prompts/film-reviews.jsonl" \
            "By its own judgement=judge=$prompts/general.jsonl" >"$repository/docs/answers.md"
        ;;
    # What each part does: noise, mean, moves and rejection alone, and all; fewer prompts where a cell
    # takes minutes.
    parts)
        # shellcheck disable=SC2046
        tuning parts $(tokens 128) --methods "$parts"
        ;;
    parts-128)
        length=128
        # shellcheck disable=SC2046
        on_film parts-128 --prompts "$(first film-reviews-tuning 3)" $(tokens 64) --methods "$parts"
        ;;
    # A reward that nothing can learn.
    hash)
        commands
        # shellcheck disable=SC2046
        compare hash -m "$smollm" --reward "command:${PYTHON:-python3} hash.py" $(tokens 128) \
            --prompts "$(first film-reviews)" --methods "$ours"
        ;;
    # The same with another of best-of-n's settings that tuning does not tell from that one.
    temperatures)
        reviews temperatures --budget 256 --seeds 1 \
            --methods "best-of-n:$drawn,best-of-n:$all,search"
        ;;
    # The other methods, at equal samples and at equal seconds, on half of the prompts.
    rivals)
        value_network
        half rivals --budget 240 --seeds 1 --methods "$rivals,soft-best-of-n:$drawn"
        ;;
    seconds)
        value_network
        local threads=2
        half seconds --by seconds --budget 8 --seeds 1 --methods "$rivals"
        ;;
    # The same with rewards of other costs, on longer answers; ARGS also with a weight whose answers are
    # about as dear as best-of-n's.
    seconds-film | seconds-judge | seconds-slow)
        commands
        local threads=2 length=64
        case $1 in
        *-film) set -- "$1" -mr "$film" ;;
        *-judge) set -- "$1" --reward judge:self ;;
        *) set -- "$1" --reward "command:${PYTHON:-python3} slow.py" ;;
        esac
        compare "$@" -m "$smollm" --prompts "$(first film-reviews 6)" --by seconds --budget 16 --seeds 1 \
            --methods "best-of-n:$all,search,aisp,$misvo,args:weight=5,$guided"
        ;;
    # Models, rewards and prompts that no default was chosen on; of the prompts half, or a third, where
    # a cell takes minutes, but for the judge's, whose answers are printed.
    gemma)
        length=64
        # shellcheck disable=SC2046
        compare gemma -m "$gemma" --no-chat -mr "$film" $(tokens 128) \
            --prompts "$(first film-reviews 8)" --methods "$two"
        ;;
    rule)
        length=64
        # shellcheck disable=SC2046
        compare rule -m "$smollm" --prompts "$(first general)" $(tokens 128) \
            --reward 'rule:words=10..12;contains=like a;excludes=the;ends-with=!' --methods "$two"
        ;;
    judge)
        length=64
        # shellcheck disable=SC2046
        compare judge -m "$smollm" --prompts "$prompts/general.jsonl" $(tokens 128) \
            --reward judge:self --methods "$two"
        ;;
    # What RE-Control's steering does to one greedy answer.
    steering)
        value_network
        reviews steering --budget 1 --seeds 1 \
            --methods "greedy,$value:step=0.1,$value,$value:step=1"
        ;;
    # How the settings were chosen, on prompts that nothing above uses.
    best-of-n)
        tuning best-of-n --budget 128 --methods "best-of-n:$all,best-of-n:$drawn,\
best-of-n:temp=1:top-p=1:min-p=0.1,best-of-n:temp=1.2:top-p=1,best-of-n:temp=1.2:top-p=1:min-p=0.1"
        ;;
    misvo)
        local exact=misvo:$all:top-k=0:min-p=0
        tuning misvo --budget 128 --methods "$exact,$exact:step=1:lambda=0.1,\
$exact:step=3:lambda=0.1,$exact:step=10:lambda=0.1"
        ;;
    args)
        # One response of 24 tokens takes 241 reward calls.
        tuning args --budget 256 \
            --methods args,args:weight=5,args:weight=10,args:weight=20,args:weight=50
        ;;
    re-control)
        value_network
        tuning re-control --budget 128 \
            --methods "$value:step=0.1,$value,$value:step=1,$value:step=2"
        ;;
    controller)
        tuning controller --budget 128 --methods "best-of-n:$all,search,search:steer=0,\
search:elites=0,search:cut=even,search:start=noise,search:floor=0,search:price=off,aisp,\
aisp:move=window,aisp:update=weights,aisp:preset=paper"
        ;;
    # The curve of the README.
    curve)
        "$program" run --threads 2 -m "$smollm" -mr "$film" --held-out judge:self -n 32 -s 3 \
            -p "Write one sentence reviewing a movie about a lost dog." \
            --plot "$repository/docs/reward-curve.svg" >curve.txt
        ;;
    theory)
        mkdir -p "$repository/docs/compare"
        "$(dirname "$program")/examples/theory" "$smollm" "$film" "$repository/docs/theory.svg" \
            >"$repository/docs/compare/theory.md"
        "$(dirname "$program")/examples/pre_logits" \
            "$cache/models/SmolLM2-135M-Instruct.Q4_1.gguf" "$gemma" \
            "$prompts"/{general,general-tuning,film-reviews,film-reviews-tuning}.jsonl \
            "$repository/docs/pre-logits.svg" >"$repository/docs/compare/pre-logits.md"
        ;;
    # The plugin's tiers, in the C example on another llama.cpp than the pinned one.
    tiers)
        local tag llama
        tag=$("${PYTHON:-python3}" -c 'import sys; print(sys.implementation.cache_tag)')
        llama=$cache/python/$tag-llama-cpp-python
        make -C "$repository" install PREFIX="$PWD/plugin" >&2
        cmake -S "$repository/examples/plugin" -B align \
            -DCMAKE_PREFIX_PATH="$PWD/plugin;$llama" >&2
        cmake --build align >&2
        mkdir -p "$repository/docs/compare"
        for model in SmolLM2-135M-Instruct.Q4_1.gguf SmolLM2-135M-Instruct.Q4_0.gguf; do
            "$repository/scripts/compare_tiers.py" align/align "$cache/models/$model" "$film" \
                "$prompts/general.jsonl"
            echo
        done >tiers.md
        cp tiers.md "$repository/docs/compare/tiers.md"
        ;;
    *)
        echo "figures.sh: no figure named $1" >&2
        exit 2
        ;;
    esac
}

mkdir -p "$cache/compare"
cd "$cache/compare"
[ $# -gt 0 ] || set -- best-of-n misvo args re-control controller parts parts-128 film film-64 \
    film-128 likelihood temperatures rivals seconds seconds-film seconds-judge seconds-slow gemma rule \
    judge judges hash answers steering theory curve tiers
for name in "$@"; do
    figure "$name"
done
