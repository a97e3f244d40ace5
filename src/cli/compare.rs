//! `compare`: methods side by side; and what it shares with `tune`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aisp_llama::compare::{
    By, Coherence, Entrant, FileId, Plan, Row, Store, files, read_prompts, summary, write_plots,
};
use aisp_llama::llama::Model;
use aisp_llama::{Aligner, AlignerOptions, Error, Result, Stop};

use super::args::{ModelArgs, RewardArgs};
use super::{setup, values};

/// What is compared on: models, rewards, prompts, lengths.
#[derive(Debug, clap::Args)]
pub struct GroundArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub reward: RewardArgs,
    /// A second reward that only watches
    #[arg(long, value_name = "KIND:…", value_parser = values::held_out, allow_hyphen_values = true, help_heading = "Rewards")]
    pub held_out: Option<aisp_llama::reward::RewardSpec>,
    /// The model that embeds prompts and responses for their coherence [default: the generator]
    #[arg(long, value_name = "FILE.gguf", help_heading = "Models")]
    pub embedding: Option<PathBuf>,
    /// Prompts, {"prompt": "…"} a line
    #[arg(long, value_name = "FILE.jsonl")]
    pub prompts: PathBuf,
    /// Candidates of one iteration
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub samples: usize,
    /// Most tokens of a response
    #[arg(
        short = 'n',
        long,
        visible_alias = "n-predict",
        value_name = "TOKENS",
        default_value_t = 128
    )]
    pub predict: usize,
    /// System prompt (-sys)
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub system_prompt: Option<String>,
    /// Take the prompts as raw text to be continued
    #[arg(long, conflicts_with = "system_prompt")]
    pub no_chat: bool,
}

#[derive(Debug, clap::Args)]
pub struct CompareArgs {
    #[command(flatten)]
    pub ground: GroundArgs,
    /// Methods with their settings, METHOD[:NAME=VALUE]…, between commas; the others are compared
    /// with the first
    #[arg(
        long,
        value_name = "A,B,…",
        value_delimiter = ',',
        default_value = "best-of-n,aisp"
    )]
    pub methods: Vec<Entrant>,
    /// Candidates, or seconds, of one run
    #[arg(
        long,
        value_name = "N",
        default_value_t = 128.0,
        allow_negative_numbers = true
    )]
    pub budget: f64,
    /// What is equal for all methods: candidates or seconds
    #[arg(long, default_value = "candidates")]
    pub by: By,
    /// Seeds 0 to N − 1
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub seeds: u64,
    /// Folder of the results; an unfinished comparison in it goes on
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
}

/// Runs the command; the answer is the exit code.
pub fn run(args: &CompareArgs) -> anyhow::Result<u8> {
    let plan = args
        .ground
        .plan(args.methods.clone(), args.seeds, args.budget, args.by)?;
    let mut bench = Bench::load(&args.ground, plan)?;
    let (rows, finished) = bench.run(&args.output)?;
    super::print_out(summary(&bench.plan, &rows).as_bytes())?;
    Ok(if finished { 0 } else { super::INTERRUPTED })
}

/// Models and rewards, loaded, with the plan that they are to carry out.
pub struct Bench {
    /// May get other methods between runs.
    pub plan: Plan,
    aligner: Aligner,
    coherence: Coherence,
    stop: Stop,
}

impl Bench {
    /// Loads what `ground` names.
    pub fn load(ground: &GroundArgs, mut plan: Plan) -> anyhow::Result<Self> {
        let load = &ground.model.load;
        let model = Arc::new(Model::load(&ground.model_path()?, &load.options())?);
        let reward = setup::load_reward(&ground.reward, load, Some(Arc::clone(&model)))?;
        let options = AlignerOptions {
            parallel: AlignerOptions::default()
                .parallel
                .min(ground.samples.max(1)),
            threads: load.threads(),
            ..AlignerOptions::default()
        };
        let mut aligner = Aligner::new(Arc::clone(&model), reward, options)?;
        if let Some(spec) = &ground.held_out {
            aligner = aligner.with_held_out(setup::load_held_out(spec, load, &model)?);
        }
        let (reward, held_out) = aligner.reward_names();
        (plan.reward, plan.held_out) = (short(&reward), held_out.as_deref().map(short));
        let embedding = match &ground.embedding {
            Some(path) => Arc::new(Model::load(path, &load.options())?),
            None => model,
        };
        let stop = Stop::new();
        setup::stop_on_interrupt(&stop)?;
        Ok(Self {
            plan,
            aligner,
            coherence: Coherence::new(embedding, load.threads())?,
            stop,
        })
    }

    /// Carries out what is missing of the plan in `folder`, and writes tables and plots there.
    /// Answers with the rows, and whether they are all.
    pub fn run(&mut self, folder: &Path) -> anyhow::Result<(Vec<Row>, bool)> {
        let plan = &self.plan;
        plan.validate()?;
        let mut store = Store::open(folder, plan)?;
        let total = plan.cells().count();
        let mut count = store.rows().len();
        let mut told = |row: &Row| {
            count += 1;
            super::note(&format!(
                "{count}/{total}  prompt {} seed {} {:24} reward {:7.3}  {:.1} s",
                row.prompt + 1,
                row.seed,
                row.method,
                row.reward,
                row.seconds
            ));
        };
        let (aligner, coherence) = (&mut self.aligner, &mut self.coherence);
        let finished = plan.run(aligner, coherence, &mut store, &self.stop, &mut told)?;
        let [_, _, path] = files(folder);
        std::fs::write(&path, summary(plan, store.rows())).map_err(Error::io(&path))?;
        write_plots(plan, store.rows(), folder)?;
        Ok((store.rows().to_vec(), finished))
    }
}

impl GroundArgs {
    fn model_path(&self) -> Result<PathBuf> {
        setup::model_path(self.model.model.as_ref(), "-m", setup::DEFAULT_MODEL)
    }

    /// What is known before anything is loaded, checked as far as it can be.
    pub fn plan(&self, methods: Vec<Entrant>, seeds: u64, budget: f64, by: By) -> Result<Plan> {
        let mut paths: Vec<PathBuf> = Vec::new();
        for text in &self.reward.model_reward {
            paths.push(
                text.split_once('*')
                    .map_or(text.as_str(), |(_, path)| path)
                    .into(),
            );
        }
        if paths.is_empty() && self.reward.reward.is_empty() {
            paths.push(setup::model_path(None, "-mr", setup::DEFAULT_REWARD)?);
        }
        let specs = || self.reward.reward.iter().chain(&self.held_out);
        paths.extend(specs().flat_map(|spec| spec.files()).map(Path::to_path_buf));
        let values = methods.iter().filter_map(|m| m.settings.value.as_ref());
        paths.extend(values.map(PathBuf::from));
        let files: Result<Vec<FileId>> = paths.iter().map(|path| FileId::of(path)).collect();
        let mut details: Vec<String> = specs().map(|spec| format!("{spec:?}")).collect();
        details.extend(self.reward.model_reward.iter().map(|text| short(text)));
        details.push(format!(
            "{:?}, too long: {:?}",
            self.reward.reward_text, self.reward.reward_too_long
        ));
        let plan = Plan {
            version: env!("CARGO_PKG_VERSION").into(),
            model: FileId::of(&self.model_path()?)?,
            embedding: self.embedding.as_deref().map(FileId::of).transpose()?,
            gpu_layers: self.model.load.n_gpu_layers,
            files: files?,
            reward: String::new(),
            reward_details: details,
            held_out: None,
            prompts: read_prompts(&self.prompts)?,
            system_prompt: self.system_prompt.clone(),
            chat: !self.no_chat,
            methods,
            seeds,
            budget,
            by,
            samples: self.samples,
            max_tokens: self.predict,
            threads: self.model.load.threads(),
        };
        plan.validate()?;
        Ok(plan)
    }
}

/// A reward's name with its files without their folders.
fn short(name: &str) -> String {
    let word = |word: &str| match word.rsplit_once('/') {
        Some((folder, file)) if file.ends_with(".gguf") => {
            let weight = folder.split_once('*').map_or("", |(weight, _)| weight);
            let star = if weight.is_empty() { "" } else { "*" };
            format!("{weight}{star}{file}")
        }
        _ => word.to_owned(),
    };
    name.split(' ').map(word).collect::<Vec<_>>().join(" ")
}
