/* The part of aisp-llama that a host compiles against its own llama.h.
 *
 * The library itself has no llama.cpp inside: two of them in one process get into each other's
 * way. Everything that needs the host's is here, as static inline functions:
 *
 *   aisp_glue_host()          what aisp_create needs of the host's ggml
 *   aisp_eval_callback        for cparams.cb_eval, exact tier
 *   aisp_sampler_init()       the sampler of one candidate
 *
 * C99 or C++11. Include llama.h's folder and ggml's in the search path.
 */
#ifndef AISP_LLAMA_GLUE_H
#define AISP_LLAMA_GLUE_H

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "ggml-backend.h"
#include "ggml.h"
#include "llama.h"

#include "aisp_llama.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Fails to compile where llama_token_data is not laid out as aisp_token. */
typedef char aisp_glue_token_layout
    [sizeof(llama_token_data) == sizeof(aisp_token) &&
             offsetof(llama_token_data, id) == offsetof(aisp_token, id) &&
             offsetof(llama_token_data, logit) == offsetof(aisp_token, logit)
         ? 1
         : -1];

static inline int aisp_glue_decode(int type, const void *data, float *out, int64_t count) {
    const struct ggml_type_traits *traits = NULL;
    if (type >= 0 && type < GGML_TYPE_COUNT) {
        traits = ggml_get_type_traits((enum ggml_type) type);
    }
    if (traits == NULL || traits->to_float == NULL) {
        return 0;
    }
    if (data != NULL) {
        traits->to_float(data, out, count);
    }
    return 1;
}

/* What aisp_create needs of the host's ggml. */
static inline aisp_host aisp_glue_host(void) {
    aisp_host host;
    host.size   = sizeof(host);
    host.decode = aisp_glue_decode;
    return host;
}

/* For cparams.cb_eval. cparams.cb_eval_user_data is the address of an `aisp *` that outlives the
 * context; the run it points to may change between decodes, and NULL is none. */
static inline bool aisp_eval_callback(struct ggml_tensor *node, bool ask, void *user_data) {
    if (strcmp(node->name, "result_norm") != 0) {
        return !ask;
    }
    if (ask) {
        return true;
    }
    aisp *        run   = user_data == NULL ? NULL : *(aisp **) user_data;
    const size_t  width = (size_t) node->ne[0];
    const size_t  count = (size_t) node->ne[1];
    const size_t  bytes = width * count * sizeof(float);
    if (run == NULL || bytes == 0) {
        return true;
    }
    /* NULL where the node is not what it should be, or there is no memory: an error of the run. */
    float *rows = node->type == GGML_TYPE_F32 ? (float *) malloc(bytes) : NULL;
    if (rows != NULL) {
        ggml_backend_tensor_get(node, rows, 0, bytes);
    }
    if (aisp_perturb(run, rows, count, width) == AISP_OK) {
        ggml_backend_tensor_set(node, rows, 0, bytes);
    }
    free(rows);
    /* false would end the graph here. */
    return true;
}

typedef struct aisp_glue_sampler {
    aisp *                 run;
    int32_t                candidate;
    struct llama_sampler_i table;
    /* llama_sampler_i grows at its end: what a newer llama.cpp reads there is NULL. */
    void *room[16];
} aisp_glue_sampler;

static inline struct llama_sampler *aisp_sampler_init(aisp *run, int32_t candidate);

static inline const char *aisp_glue_name(const struct llama_sampler *sampler) {
    (void) sampler;
    return "aisp";
}

static inline void aisp_glue_accept(struct llama_sampler *sampler, llama_token token) {
    const aisp_glue_sampler *self = (const aisp_glue_sampler *) sampler->ctx;
    (void) aisp_accept(self->run, self->candidate, token);
}

static inline void aisp_glue_apply(struct llama_sampler *sampler, llama_token_data_array *tokens) {
    const aisp_glue_sampler *self = (const aisp_glue_sampler *) sampler->ctx;
    (void) aisp_apply(self->run, self->candidate, (aisp_token *) tokens->data, tokens->size);
    tokens->sorted = false;
}

static inline void aisp_glue_reset(struct llama_sampler *sampler) {
    const aisp_glue_sampler *self = (const aisp_glue_sampler *) sampler->ctx;
    (void) aisp_reset(self->run, self->candidate);
}

static inline struct llama_sampler *aisp_glue_clone(const struct llama_sampler *sampler) {
    const aisp_glue_sampler *self = (const aisp_glue_sampler *) sampler->ctx;
    return aisp_sampler_init(self->run, self->candidate);
}

static inline void aisp_glue_free(struct llama_sampler *sampler) {
    free(sampler->ctx);
}

/* The sampler of one candidate. Put it first in a chain that ends with
 * llama_sampler_init_greedy(): llama_sampler_sample() then chooses the candidate's next token and
 * tells it to the run. The chain owns it, as any sampler; a clone is another sampler of the same
 * candidate. Errors show in the next call on the run. NULL without memory. */
static inline struct llama_sampler *aisp_sampler_init(aisp *run, int32_t candidate) {
    aisp_glue_sampler *self = (aisp_glue_sampler *) calloc(1, sizeof(*self));
    if (self == NULL) {
        return NULL;
    }
    self->run          = run;
    self->candidate    = candidate;
    self->table.name   = aisp_glue_name;
    self->table.accept = aisp_glue_accept;
    self->table.apply  = aisp_glue_apply;
    self->table.reset  = aisp_glue_reset;
    self->table.clone  = aisp_glue_clone;
    self->table.free   = aisp_glue_free;
    return llama_sampler_init(&self->table, self);
}

#ifdef __cplusplus
}
#endif

#endif
