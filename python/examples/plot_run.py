# %% [markdown]
# # A run, watched
# Rewards of all candidates by iteration, the best so far, and what the answer costs the model.
# Run as a script, or cell by cell: `python plot_run.py MODEL.gguf REWARD.gguf`.

# %%
import sys

import matplotlib.pyplot as plt

import aisp_llama

model, reward = sys.argv[1:]
aligner = aisp_llama.Aligner(model, reward)

# %%
points, best = [], []
for event in aligner.events("Write one sentence reviewing a movie about a lost dog.", max_tokens=32):
    if event["event"] == "candidate_scored" and event["reward"] is not None:
        points.append((event["iteration"], event["reward"]))
    elif event["event"] == "iteration_done":
        best.append(event["best_reward"])
    elif event["event"] == "answer":
        answer = event["answer"]

# %%
plt.scatter(*zip(*points), s=12, alpha=0.5, label="candidates")
plt.plot(best, label="best so far")
plt.xlabel("iteration")
plt.ylabel("reward")
plt.title(answer.response, fontsize=8)
plt.legend()
plt.savefig("run.png", dpi=120)
print(answer, answer.reward, answer.price)
