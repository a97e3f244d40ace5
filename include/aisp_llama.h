#ifndef AISP_LLAMA_H
#define AISP_LLAMA_H

/* Made by cbindgen from src/plugin: change that, then UPDATE_HEADER=1 cargo test --release --test plugin header */

#include <stddef.h>
#include <stdint.h>

// What a call says of itself: AISP_OK, or what kind of thing was wrong.
typedef enum aisp_status {
  // Done.
  AISP_OK = 0,
  // The handle is NULL, was freed, or did not come from aisp_create.
  AISP_BAD_HANDLE = -1,
  // An argument cannot be: NULL, out of range, of the wrong size.
  AISP_BAD_ARGUMENT = -2,
  // The call came at the wrong time.
  AISP_BAD_ORDER = -3,
  // Two threads used the handle at once.
  AISP_BUSY = -4,
  // The model file cannot be used.
  AISP_BAD_MODEL = -5,
  // A defect of this library.
  AISP_INTERNAL = -6,
  // An earlier call on this handle failed.
  AISP_FAILED = -7,
} aisp_status;

// How the perturbation gets into the host's logits.
typedef enum aisp_tier {
  // Added to the pre-logits inside the host's graph: the host sets `cparams.cb_eval` to
  // aisp_eval_callback and calls aisp_bind before every decode. The host's own graph does
  // the rest; costs a copy of the rows.
  AISP_TIER_EXACT = 0,
  // W·v added to finished logits by the sampler: no change to the context. Costs a product
  // with the output matrix for every position, and differs from the exact tier by the
  // rounding of the host's own product.
  AISP_TIER_SAMPLER = 1,
} aisp_tier;

// What makes the next candidates of the last.
typedef enum aisp_method {
  // The search: a mean by regression on the output matrix, and the best candidates continued.
  // The default.
  AISP_METHOD_SEARCH = 0,
  // Adaptive importance sampling, arXiv 2510.26219: the weighted mean of the noise.
  AISP_METHOD_AISP = 1,
} aisp_method;

// One alignment run: the search for the best response to one prompt. Belongs to one thread at
// a time.
typedef struct aisp aisp;

// Options of a run. aisp_options_init fills in all but `model_path` and `horizon`.
typedef struct aisp_options {
  // sizeof(aisp_options).
  size_t size;
  // The GGUF file that the host's model was loaded from, UTF-8. Read by aisp_create only.
  const char *model_path;
  // An aisp_tier.
  int tier;
  // An aisp_method.
  int method;
  // Candidates of one iteration, 1 to 4096 (16). Times `horizon` they are at most 67108864.
  uint32_t samples;
  // Iterations (8).
  uint32_t iterations;
  // Response positions that are perturbed, usually the most tokens of a response; 1 to
  // 131072. Times the width of the pre-logits they are at most 268435456.
  uint32_t horizon;
  // Seed of the noise (0).
  uint64_t seed;
  // Standard deviation of the noise on a pre-logit; below 0 (the default) it follows from
  // logit_sd.
  double sigma;
  // Standard deviation of the noise on a logit beside what all logits share, in root mean square
  // over the vocabulary (0.770: Gumbel noise at temperature 0.6).
  double logit_sd;
  // Search: norm of the mean in units of the noise's, for a reward that it explains entirely
  // (2).
  double steer;
  // Search: candidates that are continued from a cut (4).
  uint32_t elites;
  // Search: share of an iteration's candidates that are drawn anew (0.25).
  double fresh;
  // Aisp: temperature of the weights; 0 or less (the default) is the one that meets `ess`.
  double lambda;
  // Aisp: target effective sample size as a fraction of the samples (0.25).
  double ess;
  // Aisp: how far the penalty's base follows the mean, 0 to 1 (0.999).
  double alpha;
  // Aisp: whether positions past a candidate's end carry no weight (1).
  int mask_past_end;
  // Whether candidate 0 of every iteration is the mean itself (0).
  int null_candidate;
} aisp_options;

// What the library needs of the host's ggml. aisp_llama_glue.h fills it in.
typedef struct aisp_host {
  // sizeof(aisp_host).
  size_t size;
  // Turns `count` values of ggml type `type` at `data` into floats at `out`; answers 0 for a
  // type it cannot turn. With `data` NULL it only answers. Must return: what it throws, or jumps
  // over with longjmp, would end the program.
  int (*decode)(int type, const void *data, float *out, int64_t count);
} aisp_host;

// A candidate token: the layout of llama_token_data.
typedef struct aisp_token {
  // Token id.
  int32_t id;
  // Its logit.
  float logit;
  // Its probability; not looked at.
  float p;
} aisp_token;

// What the last update said; NAN where there is nothing to say.
typedef struct aisp_report {
  // sizeof(aisp_report).
  size_t size;
  // Iterations done.
  uint32_t iterations;
  // Best reward of all candidates so far.
  double best_reward;
  // Mean reward of the last iteration done.
  double mean_reward;
  // Effective sample size of the candidates that the next iteration starts from.
  double ess;
  // Temperature of the weights.
  double lambda;
  // Standard deviation of the noise on a pre-logit.
  double sigma;
  // |U|/(σ√(dτ)).
  double u_norm;
  // KL(Q_U‖P) in nats.
  double kl;
  // Share of the reward's variance that the mean's direction explains.
  double r2;
} aisp_report;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Version of this library, such as "0.1.0". Static; any thread.
const char *aisp_version(void);

// Fills in the defaults. `model_path` becomes NULL and `horizon` 0: set both. `size` is
// sizeof(aisp_options): another one, of another version's header, is an error, and nothing is
// written.
//
// # Safety
// `options` is NULL or points to `size` bytes. Any thread.
enum aisp_status aisp_options_init(struct aisp_options *options, size_t size);

// The seed for a prompt, from that of several runs and the prompt's tokens: with one for each prompt
// the runs are independent draws. `aisp-llama run` does the same.
//
// # Safety
// `tokens` points to `count` numbers; it is not kept. NULL is no tokens.
uint64_t aisp_prompt_seed(uint64_t seed,
                          const int32_t *tokens,
                          size_t count);

// Starts a run. Answers NULL on failure; aisp_last_error(NULL) on the same thread says why.
//
// Reads the output matrix of `model_path` once where sigma follows from logit_sd. Nothing that
// is passed in is kept, but for the functions of `host`.
//
// # Safety
// `options` and `host` are NULL or point to their structures, `model_path` is NULL or a string
// that ends in NUL. The handle is the caller's to free with aisp_free. Any thread.
struct aisp *aisp_create(const struct aisp_options *options, const struct aisp_host *host);

// Opens the next iteration. Answers its number of candidates, 0 when all iterations are done,
// or a negative aisp_status. Each of them begins with the prompt's last token, decoded once for
// each: the logits of the prompt itself are perturbed for nobody.
int32_t aisp_begin(struct aisp *handle);

// Exact tier: says which candidate each output row of the next decode belongs to, −1 for none.
// The rows are those that the batch asks logits of, in its order and in one ubatch: with a
// stream for each sequence, equally many tokens of each, one sequence after the other. A
// decode that failed may be bound again.
//
// # Safety
// `candidates` points to `rows` numbers; it is not kept.
enum aisp_status aisp_bind(struct aisp *handle, const int32_t *candidates, size_t rows);

// Exact tier, called by the glue: adds v to the pre-logits `rows` [count, width] of the running
// decode.
//
// # Safety
// `rows` points to count · width floats; it is not kept.
enum aisp_status aisp_perturb(struct aisp *handle, float *rows, size_t count, size_t width);

// Called by the sampler of `candidate`: makes the logits of `tokens`, in any order and
// truncated or not, those of the perturbed pre-logits. On the exact tier they are already, and
// only that is checked.
//
// # Safety
// `tokens` points to `count` of them; it is not kept.
enum aisp_status aisp_apply(struct aisp *handle,
                            int32_t candidate,
                            struct aisp_token *tokens,
                            size_t count);

// Called by the sampler of `candidate`: `token` is its next one, the end-of-turn token included.
enum aisp_status aisp_accept(struct aisp *handle, int32_t candidate, int32_t token);

// Called by the sampler of `candidate`: forgets its tokens, unless it has its reward already.
enum aisp_status aisp_reset(struct aisp *handle, int32_t candidate);

// The reward of a finished candidate, in any units; NAN for one that could not be scored.
enum aisp_status aisp_reward(struct aisp *handle, int32_t candidate, double reward);

// Closes the iteration: learns from the candidates that have a reward, and leaves out the others.
enum aisp_status aisp_update(struct aisp *handle);

// The best candidate of all iterations, the open one included: its tokens, as they were
// accepted, and its reward. With no reward so far `*count` is 0 and `*reward` NAN.
//
// # Safety
// All three point to room for their value. `*tokens` is the library's, and lives until the next
// aisp_reward or aisp_free.
enum aisp_status aisp_best(const struct aisp *handle,
                           const int32_t **tokens,
                           size_t *count,
                           double *reward);

// What the last update said. Set `report->size` before the call.
//
// # Safety
// `report` is NULL or points to an aisp_report.
enum aisp_status aisp_telemetry(const struct aisp *handle, struct aisp_report *report);

// Ends a run. NULL is nothing to free; a second time is AISP_BAD_HANDLE. Samplers made for the
// handle may be freed before or after.
enum aisp_status aisp_free(struct aisp *handle);

// Why the handle failed, "" if it did not; with NULL, or a handle that is none, what went wrong
// last on this thread. Lives until the handle is freed, or until the thread's next error.
const char *aisp_last_error(const struct aisp *handle);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* AISP_LLAMA_H */
