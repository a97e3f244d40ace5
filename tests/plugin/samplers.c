/* The glue's samplers under a chain's ownership: samplers model.gguf */
#include "aisp_llama_glue.h"
#include "expect.h"

#define VOCABULARY 16

/* What a chain chooses from equal logits, given in descending order of their ids. */
static llama_token choose(struct llama_sampler *chain) {
    llama_token_data data[VOCABULARY];
    for (int i = 0; i < VOCABULARY; i++) {
        data[i].id    = VOCABULARY - 1 - i;
        data[i].logit = 1;
        data[i].p     = 0;
    }
    llama_token_data_array tokens = { data, VOCABULARY, -1, true };
    llama_sampler_apply(chain, &tokens);
    EXPECT(tokens.selected >= 0 && !tokens.sorted);
    return data[tokens.selected].id;
}

int main(int argc, char **argv) {
    EXPECT(argc == 2);
    aisp_options options;
    EXPECT(aisp_options_init(&options, sizeof(options)) == AISP_OK);
    options.model_path = argv[1];
    options.tier       = AISP_TIER_SAMPLER;
    options.horizon    = 4;
    aisp_host host     = aisp_glue_host();
    EXPECT(host.decode(GGML_TYPE_Q4_0, NULL, NULL, 0) == 1);
    EXPECT(host.decode(-1, NULL, NULL, 0) == 0 && host.decode(GGML_TYPE_COUNT, NULL, NULL, 0) == 0);
    aisp *run = aisp_create(&options, &host);
    EXPECT(run != NULL && aisp_begin(run) == 16);

    struct llama_sampler *chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
    llama_sampler_chain_add(chain, aisp_sampler_init(run, 3));
    llama_sampler_chain_add(chain, llama_sampler_init_greedy());
    EXPECT(strcmp(llama_sampler_name(llama_sampler_chain_get(chain, 0)), "aisp") == 0);

    /* A clone is the same candidate: what it accepts, the run has. */
    struct llama_sampler *clone = llama_sampler_clone(chain);
    const llama_token     first = choose(chain);
    EXPECT(choose(clone) == first);
    llama_sampler_accept(clone, first);
    const llama_token second = choose(chain);
    llama_sampler_accept(chain, second);

    /* Reset forgets both; the next token is the first again. */
    llama_sampler_reset(chain);
    EXPECT(choose(chain) == first);
    llama_sampler_accept(chain, first);
    EXPECT(aisp_reward(run, 3, 1.5) == AISP_OK);
    const int32_t *tokens;
    size_t         count;
    double         reward;
    EXPECT(aisp_best(run, &tokens, &count, &reward) == AISP_OK);
    EXPECT(count == 1 && tokens[0] == first && reward == 1.5);

    /* Freed in any order; a sampler without its run changes nothing. */
    llama_sampler_free(chain);
    EXPECT(aisp_free(run) == AISP_OK);
    EXPECT(choose(clone) == VOCABULARY - 1);
    llama_sampler_accept(clone, 0);
    llama_sampler_reset(clone);
    llama_sampler_free(clone);
    return 0;
}
