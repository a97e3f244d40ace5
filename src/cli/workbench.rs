//! What `compare` and `tune` work on: models, rewards and prompts, loaded once, and a plan.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aisp_llama::compare::{
    By, Coherence, Failure, FileId, Folder, Plan, Row, Shard, Store, files, summary, write_plots,
};
use aisp_llama::gguf::Gguf;
use aisp_llama::llama::{ChatOptions, ChatTemplate, LogitsRoute, Model};
use aisp_llama::method::MethodSpec;
use aisp_llama::reward::{Reward, RewardSpec};
use aisp_llama::serve::Ground;
use aisp_llama::{Aligner, EngineOptions, Error, Result, RunRewards, save};

use serde_json::json;

use super::flags::{HeldOutArgs, LengthArgs, ModelArgs, PromptsArgs, RewardArgs, SamplesArgs};
use super::{output, setup, values};

/// What is compared on: models, rewards, prompts, lengths.
#[derive(Debug, clap::Args)]
pub struct GroundArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub reward: RewardArgs,
    #[command(flatten)]
    pub held_out: HeldOutArgs,
    /// The model that embeds prompts and responses for their coherence [default: the generator]
    #[arg(long, value_name = "FILE.gguf", help_heading = "Models")]
    pub embedding: Option<PathBuf>,
    #[command(flatten)]
    pub prompts: PromptsArgs,
    #[command(flatten)]
    pub samples: SamplesArgs,
    #[command(flatten)]
    pub length: LengthArgs,
    /// The I-th of N equal shares of the prompts alone, from 1/N to N/N; `compare merge` puts the
    /// folders together
    #[arg(long, value_name = "I/N", value_parser = values::reason(str::parse::<Shard>))]
    pub shard: Option<Shard>,
}

/// Models and rewards, loaded, with the plan that they are to carry out.
pub struct Workbench {
    /// May get other methods between runs.
    pub plan: Plan,
    aligner: Aligner,
    reward: Box<dyn Reward>,
    held_out: Option<Box<dyn Reward>>,
    coherence: Coherence,
    shard: Shard,
}

/// What a plan has come to.
pub struct Outcome {
    /// The rows.
    pub rows: Vec<Row>,
    /// The runs that came to no answer.
    pub failures: Vec<Failure>,
    /// Whether they are all that were to be computed here.
    pub finished: bool,
    /// Rows of the plan that are still to come, those of other shards included.
    pub missing: usize,
}

impl Outcome {
    /// Fails with the reason where `method` has no row for its failures.
    pub fn check(&self, method: &MethodSpec) -> Result<()> {
        let own = |name: &str| name == method.label();
        let failure = self.failures.iter().find(|f| own(&f.method));
        match failure {
            Some(failure) if !self.rows.iter().any(|r| own(&r.method)) => Err(failure.to_error()),
            _ => Ok(()),
        }
    }
}

impl Workbench {
    /// Loads what `ground` names, for work whose rows go into `folder`.
    pub fn load(ground: &GroundArgs, mut plan: Plan, folder: &Path) -> anyhow::Result<Self> {
        Folder::check(folder)?;
        let load = &ground.model.load;
        let model = Arc::new(Model::load(
            &setup::model_path(&ground.model)?,
            &ground.model.options(),
        )?);
        let chat = ground.prompts.chat.options()?;
        let reward = setup::load_reward(&ground.reward, load, &chat, Some(Arc::clone(&model)))?;
        let options = EngineOptions {
            parallel: EngineOptions::default()
                .parallel
                .min(ground.samples.samples.max(1)),
            threads: load.threads(),
            threads_batch: load.threads_batch(),
            attention: load.attention(),
            chat: chat.clone(),
            reasoning: ground.prompts.chat.reasoning()?,
            ..EngineOptions::default()
        };
        let aligner = Aligner::new(Arc::clone(&model), options)?;
        let held_out = setup::load_held_out(&ground.held_out, load, &chat, &model)?;
        let methods: Vec<&str> = plan.methods.iter().map(MethodSpec::label).collect();
        setup::announce(
            &model,
            reward.as_ref(),
            &methods.join(", "),
            &format!("{} {} a run", plan.budget, plan.by),
        );
        plan.reward = setup::short(&reward.name());
        plan.held_out = held_out.as_ref().map(|reward| setup::short(&reward.name()));
        let embedding = match &ground.embedding {
            Some(path) => Arc::new(Model::load(path, &load.options())?),
            None => model,
        };
        Ok(Self {
            plan,
            aligner,
            reward,
            held_out,
            coherence: Coherence::new(embedding, load.threads())?,
            shard: ground.shard.unwrap_or_default(),
        })
    }

    /// Carries out what is missing of the plan in `folder`, and writes tables and plots there.
    /// The tables say how far it came, whatever ended it.
    pub fn run(&mut self, folder: &Path) -> anyhow::Result<Outcome> {
        let plan = &self.plan;
        plan.validate()?;
        let mut store = Store::open(folder, plan, self.shard)?;
        let total = plan.cells().filter(|c| self.shard.has(c.prompt)).count();
        let mut count = total - plan.cells().filter(|&c| store.lacks(plan, c)).count();
        let mut told = |new: std::result::Result<&Row, &Failure>| {
            count += 1;
            output::note(&match new {
                Ok(row) => format!(
                    "{count}/{total}  prompt {} seed {} {:24} reward {:7.3}  {:.1} s",
                    row.prompt + 1,
                    row.seed,
                    row.method,
                    row.reward,
                    row.seconds
                ),
                Err(failure) => format!("{count}/{total}  failed: {}", failure.to_error()),
            });
        };
        let (aligner, coherence) = (&mut self.aligner, &mut self.coherence);
        let mut rewards = RunRewards::new(self.reward.as_mut(), &mut self.held_out);
        let stop = &setup::stop_on_interrupt();
        let finished = plan.run(
            aligner,
            &mut rewards,
            coherence,
            &mut store,
            stop,
            &mut told,
        );
        let (rows, failures) = (store.rows(), store.failures());
        let tables = write_tables(plan, rows, failures, folder);
        let finished = finished?;
        tables?;
        if !failures.is_empty() {
            let [_, results, _] = files(folder);
            output::note(&format!(
                "failed: {} of {total}; the `error` in {} says why",
                failures.len(),
                results.display()
            ));
        }
        Ok(Outcome {
            rows: rows.to_vec(),
            failures: failures.to_vec(),
            finished,
            missing: plan.cells().count() - rows.len() - failures.len(),
        })
    }
}

/// Writes tables and plots of `plan` into `folder`.
pub fn write_tables(plan: &Plan, rows: &[Row], failures: &[Failure], folder: &Path) -> Result<()> {
    let [_, _, path] = files(folder);
    save(&path, summary(plan, rows, failures))?;
    write_plots(plan, rows, folder)
}

impl GroundArgs {
    /// What is known before anything is loaded, checked as far as it can be.
    pub fn plan(&self, methods: Vec<MethodSpec>, seeds: u64, budget: f64, by: By) -> Result<Plan> {
        let (samples, max_tokens) = (self.samples.samples, self.length.max_tokens()?);
        let path = setup::model_path(&self.model)?;
        let (files, mut details) =
            files_and_options(&self.reward, &self.held_out, &methods, &path)?;
        details.extend(self.model.details());
        let header = Gguf::open(&path).map_err(Error::gguf(&path))?;
        let chat = self.prompts.chat.options()?;
        let plan = Plan {
            build: output::build().to_vec(),
            cpu: output::cpu(),
            model: FileId::of(&path)?,
            embedding: self.embedding.as_deref().map(FileId::of).transpose()?,
            gpu_layers: self.model.load.gpu_layers(),
            files,
            reward: String::new(),
            reward_details: details,
            held_out: None,
            prompts: self.prompts.read()?,
            system_prompt: self.prompts.chat.system_prompt.clone(),
            chat: !self.prompts.chat.no_chat,
            // Prompts with another date in them are others.
            date: self.prompts.chat.date_told(&chat, &header),
            chat_template: chat.template,
            chat_template_kwargs: chat.variables,
            think: chat.think,
            reasoning_budget: self.prompts.chat.reasoning_budget,
            reasonings: self.prompts.chat.reasonings,
            methods,
            first_seed: 0,
            seeds,
            budget,
            by,
            samples,
            max_tokens,
            threads: self.model.load.threads(),
        };
        plan.validate()?;
        Ok(plan)
    }
}

/// The files of the rewards that the flags ask for, for the generator in the file `model`.
pub fn reward_paths(
    reward: &RewardArgs,
    held_out: &HeldOutArgs,
    model: &Path,
) -> Result<Vec<PathBuf>> {
    let specs = setup::reward_specs(reward, Some(model))?;
    let files = |spec: &RewardSpec| -> Vec<PathBuf> {
        spec.files().into_iter().map(PathBuf::from).collect()
    };
    Ok(specs
        .iter()
        .chain(&held_out.held_out)
        .flat_map(files)
        .collect())
}

/// What texts and rewards depend on beside a request, for the generator in the file `path`.
pub fn ground(
    model: &ModelArgs,
    reward: &RewardArgs,
    chat: &ChatOptions,
    path: &Path,
    logits: LogitsRoute,
) -> Ground {
    let chat = chat.of_any_model();
    let (path, reward) = (path.to_owned(), reward.clone());
    let (layers, details) = (model.load.gpu_layers(), model.details());
    Ground::new(move || {
        let none = HeldOutArgs { held_out: None };
        let (files, rewards) = files_and_options(&reward, &none, &[], &path)?;
        // What templates of reward models tell of the date.
        let told = |path: &PathBuf| {
            let file = Gguf::open(path).ok()?;
            ChatTemplate::of(file.chat_template()?, "", "", &chat).date()
        };
        let paths = reward_paths(&reward, &none, &path)?;
        let dates: Vec<Option<String>> = paths.iter().map(|p| Some(told(p)?.to_string())).collect();
        Ok(json!({
            "build": output::build(),
            "cpu": output::cpu(),
            "model": FileId::of(&path)?,
            "gpu_layers": layers,
            "model_details": details,
            "logits": logits,
            "files": files,
            "rewards": rewards,
            "chat_template_kwargs": chat.variables,
            "date": dates,
        }))
    })
}

/// The files of the rewards and of the methods' settings by their content, and what else determines
/// the rewards: their options.
pub fn files_and_options(
    reward: &RewardArgs,
    held_out: &HeldOutArgs,
    methods: &[MethodSpec],
    model: &Path,
) -> Result<(Vec<FileId>, Vec<String>)> {
    let mut paths = reward_paths(reward, held_out, model)?;
    let settings = methods.iter().flat_map(|method| method.settings().files());
    paths.extend(settings.map(PathBuf::from));
    let specs = reward.reward.iter().chain(&held_out.held_out);
    let files: Result<Vec<FileId>> = paths.iter().map(|path| FileId::of(path)).collect();
    let mut details: Vec<String> = specs.map(|spec| format!("{spec:?}")).collect();
    details.extend(reward.model_reward.iter().map(|text| setup::short(text)));
    details.push(format!(
        "{:?}, too long: {:?}",
        reward.reward_text,
        reward.reward_too_long.unwrap_or_default()
    ));
    Ok((files?, details))
}
