/* Aligns one prompt with a decoding loop of its own, and AISP as a sampler.
 *
 *   align -m model.gguf -mr reward.gguf -p prompt [-n 32] [-s 0] [-t 1] [--samples 16]
 *         [--iterations 8] [--tier exact|sampler] [--method search|aisp]
 *
 * The prompt is raw text, special tokens included. The reward is a classifier with one output.
 * Prints every candidate and every iteration, then the best response.
 */
#include "aisp_llama_glue.h"

#include <math.h>
#include <stdio.h>

/* ggml's kernels change with the number of rows and, with it, the last bits of their results:
 * rows in full groups make a candidate independent of its neighbours. */
#define ROW_GROUP 8
#define PROMPT_CHUNK 512

static void die(const char *what, const char *why) {
    fprintf(stderr, "align: %s: %s\n", what, why);
    exit(1);
}

static void quiet(enum ggml_log_level level, const char *text, void *user_data) {
    (void) user_data;
    if (level == GGML_LOG_LEVEL_ERROR) {
        fputs(text, stderr);
    }
}

/* ---- the reward: a classifier's only output for the response alone ---- */

struct reward {
    const struct llama_vocab *vocab;
    struct llama_context *    context;
};

static struct reward load_reward(const char *path, int threads) {
    struct llama_model *model = llama_model_load_from_file(path, llama_model_default_params());
    if (model == NULL) {
        die(path, "not a model");
    }
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = 512;
    params.n_seq_max                                = 1;
    params.n_threads = params.n_threads_batch = threads;
    params.embeddings                         = true;
    params.pooling_type                       = LLAMA_POOLING_TYPE_RANK;
    struct reward reward = { llama_model_get_vocab(model), llama_init_from_model(model, params) };
    if (reward.context == NULL) {
        die(path, "no context");
    }
    return reward;
}

static double score(struct reward *reward, const char *text) {
    llama_token tokens[512];
    const int   count =
        llama_tokenize(reward->vocab, text, (int32_t) strlen(text), tokens, 512, true, false);
    if (count <= 0) {
        return NAN;
    }
    struct llama_batch batch = llama_batch_init(count, 0, 1);
    batch.n_tokens           = count;
    for (int i = 0; i < count; i++) {
        batch.token[i]     = tokens[i];
        batch.pos[i]       = i;
        batch.n_seq_id[i]  = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i]    = true;
    }
    double value = NAN;
    /* Encoders have no memory. */
    llama_memory_t memory = llama_get_memory(reward->context);
    if (memory != NULL) {
        llama_memory_clear(memory, true);
    }
    if (llama_decode(reward->context, batch) == 0) {
        value = llama_get_embeddings_seq(reward->context, 0)[0];
    }
    llama_batch_free(batch);
    return value;
}

/* ---- text ---- */

/* Bytes of the UTF-8 character at `c`, or of as much of one as there is; `whole` says which. */
static size_t utf8(const unsigned char *c, bool *whole) {
    const size_t length = *c < 0x80   ? 1
                          : *c < 0xc2 ? 0
                          : *c < 0xe0 ? 2
                          : *c < 0xf0 ? 3
                          : *c < 0xf5 ? 4
                                      : 0;
    unsigned char low   = *c == 0xe0 ? 0xa0 : *c == 0xf0 ? 0x90 : 0x80;
    unsigned char high  = *c == 0xed ? 0x9f : *c == 0xf4 ? 0x8f : 0xbf;
    *whole              = false;
    for (size_t i = 1; i < length; i++) {
        if (c[i] < low || c[i] > high) {
            return i;
        }
        low  = 0x80;
        high = 0xbf;
    }
    *whole = length > 0;
    return *whole ? length : 1;
}

/* A copy of `text` with U+FFFD for what is not UTF-8, as a response may end inside a character. */
static char *repaired(const char *text) {
    char *copy = malloc(3 * strlen(text) + 1);
    char *end  = copy;
    if (copy == NULL) {
        die("text", "out of memory");
    }
    while (*text != '\0') {
        bool         whole;
        const size_t length = utf8((const unsigned char *) text, &whole);
        memcpy(end, whole ? text : "\xef\xbf\xbd", whole ? length : 3);
        end += whole ? length : 3;
        text += length;
    }
    *end = '\0';
    return copy;
}

static char *text_of(const struct llama_vocab *vocab, const llama_token *tokens, size_t count) {
    size_t size = 0, room = 64;
    char * text = malloc(room);
    for (size_t i = 0; i < count && text != NULL; i++) {
        char piece[256];
        int  length = llama_token_to_piece(vocab, tokens[i], piece, sizeof(piece), 0, false);
        if (length < 0) {
            continue;
        }
        if (size + (size_t) length + 1 > room) {
            room = 2 * room + (size_t) length;
            text = realloc(text, room);
        }
        if (text != NULL) {
            memcpy(text + size, piece, (size_t) length);
            size += (size_t) length;
        }
    }
    if (text == NULL) {
        die("text", "out of memory");
    }
    text[size]   = '\0';
    char *result = repaired(text);
    free(text);
    return result;
}

static void print_json_string(const char *text) {
    putchar('"');
    for (const unsigned char *c = (const unsigned char *) text; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\') {
            printf("\\%c", *c);
        } else if (*c < 0x20) {
            printf("\\u%04x", *c);
        } else {
            putchar(*c);
        }
    }
    putchar('"');
}

static void print_json_number(double value) {
    if (isfinite(value)) {
        printf("%.9g", value);
    } else {
        printf("null");
    }
}

/* ---- the loop ---- */

static void check(aisp *run, int32_t status) {
    if (status < 0) {
        die("aisp", aisp_last_error(run));
    }
}

static void add(struct llama_batch *batch, llama_token token, int position, int sequence, bool output) {
    const int row             = batch->n_tokens++;
    batch->token[row]         = token;
    batch->pos[row]           = position;
    batch->n_seq_id[row]      = 1;
    batch->seq_id[row][0]     = sequence;
    batch->logits[row]        = output;
}

static int number(const char *flag, const char *text) {
    char *     end;
    const long value = strtol(text, &end, 10);
    if (*text == '\0' || *end != '\0' || value < 0 || value > 1000000) {
        die(flag, "give a number from 0 to 1000000");
    }
    return (int) value;
}

int main(int argc, char **argv) {
    const char *model_path = NULL, *reward_path = NULL, *prompt = NULL, *tier = "exact";
    const char *method = "search";
    int         predict = 32, seed = 0, threads = 1, samples = 16, iterations = 8;
    for (int i = 1; i < argc; i += 2) {
        const char *flag = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (value == NULL) {
            die(flag, "has no value");
        } else if (strcmp(flag, "-m") == 0) {
            model_path = value;
        } else if (strcmp(flag, "-mr") == 0) {
            reward_path = value;
        } else if (strcmp(flag, "-p") == 0) {
            prompt = value;
        } else if (strcmp(flag, "-n") == 0) {
            predict = number(flag, value);
        } else if (strcmp(flag, "-s") == 0) {
            seed = number(flag, value);
        } else if (strcmp(flag, "-t") == 0) {
            threads = number(flag, value);
        } else if (strcmp(flag, "--samples") == 0) {
            samples = number(flag, value);
        } else if (strcmp(flag, "--iterations") == 0) {
            iterations = number(flag, value);
        } else if (strcmp(flag, "--tier") == 0) {
            tier = value;
        } else if (strcmp(flag, "--method") == 0) {
            method = value;
        } else {
            die(flag, "no such option");
        }
    }
    if (model_path == NULL || reward_path == NULL || prompt == NULL || samples < 1 || samples > 256) {
        die("usage", "-m model.gguf -mr reward.gguf -p prompt; --samples 1 to 256");
    }
    const bool exact = strcmp(tier, "exact") == 0;
    if (!exact && strcmp(tier, "sampler") != 0) {
        die("--tier", "give exact or sampler");
    }

    const bool aisp_method = strcmp(method, "aisp") == 0;
    if (!aisp_method && strcmp(method, "search") != 0) {
        die("--method", "give search or aisp");
    }

    llama_log_set(quiet, NULL);
    llama_backend_init();
    struct llama_model *model = llama_model_load_from_file(model_path, llama_model_default_params());
    if (model == NULL) {
        die(model_path, "not a model");
    }
    const struct llama_vocab *vocab  = llama_model_get_vocab(model);
    struct reward             reward = load_reward(reward_path, threads);

    const int needed = -llama_tokenize(vocab, prompt, (int32_t) strlen(prompt), NULL, 0, true, true);
    llama_token *tokens = malloc(sizeof(llama_token) * (size_t) (needed > 0 ? needed : 1));
    if (needed < 1 || tokens == NULL) {
        die("-p", "no tokens");
    }
    llama_tokenize(vocab, prompt, (int32_t) strlen(prompt), tokens, needed, true, true);

    /* The run. */
    aisp_options options;
    if (aisp_options_init(&options, sizeof(options)) != AISP_OK) {
        die("aisp_options_init", aisp_last_error(NULL));
    }
    options.model_path = model_path;
    options.tier       = exact ? AISP_TIER_EXACT : AISP_TIER_SAMPLER;
    options.method     = aisp_method ? AISP_METHOD_AISP : AISP_METHOD_SEARCH;
    options.samples    = (uint32_t) samples;
    options.iterations = (uint32_t) iterations;
    options.horizon    = (uint32_t) predict;
    options.seed       = aisp_prompt_seed((uint64_t) seed, tokens, (size_t) needed);
    aisp_host host     = aisp_glue_host();
    aisp *    run      = aisp_create(&options, &host);
    if (run == NULL) {
        die("aisp_create", aisp_last_error(NULL));
    }

    /* A context with a key-value stream for every candidate. */
    const int rows     = (samples + ROW_GROUP - 1) / ROW_GROUP * ROW_GROUP;
    const int length   = needed + predict;
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx     = (uint32_t) (length * rows);
    params.n_seq_max = (uint32_t) rows;
    params.n_batch = params.n_ubatch          = PROMPT_CHUNK;
    params.n_threads = params.n_threads_batch = threads;
    params.kv_unified                         = false;
    params.swa_full                           = true;
    if (exact) {
        params.cb_eval           = aisp_eval_callback;
        params.cb_eval_user_data = &run;
    }
    struct llama_context *context = llama_init_from_model(model, params);
    if (context == NULL) {
        die(model_path, "no context");
    }
    llama_memory_t memory = llama_get_memory(context);

    /* All but the last token of the prompt, once for all. */
    struct llama_batch batch = llama_batch_init(PROMPT_CHUNK > rows ? PROMPT_CHUNK : rows, 0, 1);
    for (int i = 0; i < needed - 1; i += batch.n_tokens) {
        batch.n_tokens = 0;
        for (int j = i; j < needed - 1 && batch.n_tokens < PROMPT_CHUNK; j++) {
            add(&batch, tokens[j], j, 0, false);
        }
        if (llama_decode(context, batch) != 0) {
            die("prompt", "cannot be decoded");
        }
    }
    for (int sequence = 1; sequence < rows && needed > 1; sequence++) {
        llama_memory_seq_cp(memory, 0, sequence, -1, -1);
    }

    struct llama_sampler **chains  = calloc((size_t) samples, sizeof(*chains));
    int32_t *              bound   = calloc((size_t) rows, sizeof(*bound));
    llama_token *          written = calloc((size_t) samples * (size_t) (predict + 1), sizeof(*written));
    int *                  counts  = calloc((size_t) samples, sizeof(*counts));
    bool *                 ended   = calloc((size_t) samples, sizeof(*ended));
    if (chains == NULL || bound == NULL || written == NULL || counts == NULL || ended == NULL) {
        die("candidates", "out of memory");
    }
    for (int i = 0; i < samples; i++) {
        chains[i] = llama_sampler_chain_init(llama_sampler_chain_default_params());
        llama_sampler_chain_add(chains[i], aisp_sampler_init(run, i));
        llama_sampler_chain_add(chains[i], llama_sampler_init_greedy());
    }

    for (int iteration = 0;; iteration++) {
        const int32_t count = aisp_begin(run);
        check(run, count);
        if (count == 0) {
            break;
        }
        int live = count;
        for (int i = 0; i < count; i++) {
            counts[i] = 0;
            ended[i]  = false;
        }
        while (live > 0) {
            batch.n_tokens = 0;
            for (int i = 0; i < rows; i++) {
                const bool alive = i < count && !ended[i];
                const int  done  = alive ? counts[i] : 0;
                bound[i]         = alive ? i : -1;
                if (done == 0) {
                    /* The first token of a candidate, or a row that only fills its group. */
                    llama_memory_seq_rm(memory, i, needed - 1, -1);
                }
                const llama_token last =
                    done == 0 ? tokens[needed - 1] : written[i * (predict + 1) + done - 1];
                add(&batch, last, needed - 1 + done, i, true);
            }
            if (exact) {
                check(run, aisp_bind(run, bound, (size_t) rows));
            }
            if (llama_decode(context, batch) != 0) {
                die("decode", "failed");
            }
            for (int i = 0; i < count; i++) {
                if (ended[i]) {
                    continue;
                }
                const llama_token token = llama_sampler_sample(chains[i], context, i);
                written[i * (predict + 1) + counts[i]++] = token;
                ended[i] = llama_vocab_is_eog(vocab, token) || counts[i] == predict;
                live -= ended[i];
            }
        }
        for (int i = 0; i < count; i++) {
            char *text  = text_of(vocab, written + i * (predict + 1), (size_t) counts[i]);
            double value = score(&reward, text);
            check(run, aisp_reward(run, i, value));
            printf("{\"iteration\":%d,\"candidate\":%d,\"reward\":", iteration, i);
            print_json_number(value);
            printf(",\"tokens\":[");
            for (int j = 0; j < counts[i]; j++) {
                printf("%s%d", j == 0 ? "" : ",", written[i * (predict + 1) + j]);
            }
            printf("],\"text\":");
            print_json_string(text);
            printf("}\n");
            free(text);
        }
        check(run, aisp_update(run));
        aisp_report report;
        report.size = sizeof(report);
        check(run, aisp_telemetry(run, &report));
        printf("{\"iteration\":%d,\"mean_reward\":", iteration);
        print_json_number(report.mean_reward);
        printf(",\"u_norm\":");
        print_json_number(report.u_norm);
        printf(",\"r2\":");
        print_json_number(report.r2);
        printf("}\n");
    }

    const int32_t *best;
    size_t         best_count;
    double         best_reward;
    check(run, aisp_best(run, &best, &best_count, &best_reward));
    char *text = text_of(vocab, best, best_count);
    printf("{\"best_reward\":");
    print_json_number(best_reward);
    printf(",\"response\":");
    print_json_string(text);
    printf("}\n");

    free(text);
    for (int i = 0; i < samples; i++) {
        llama_sampler_free(chains[i]);
    }
    free(chains);
    free(bound);
    free(written);
    free(counts);
    free(ended);
    free(tokens);
    llama_batch_free(batch);
    llama_free(context);
    aisp_free(run);
    struct llama_model *reward_model = (struct llama_model *) llama_get_model(reward.context);
    llama_free(reward.context);
    llama_model_free(reward_model);
    llama_model_free(model);
    llama_backend_free();
    return 0;
}
