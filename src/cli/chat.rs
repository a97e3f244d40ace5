//! `chat`: a conversation in the terminal, every answer a run.

use std::io::{BufRead, ErrorKind, IsTerminal, Write};
use std::sync::Arc;

use aisp_llama::llama::Message;
use aisp_llama::method::MethodSpec;
use aisp_llama::{AlignOptions, Aligner, Alignment, Error, Prompt, RunRewards, Stop, StopReason};

use super::form_args::FormArgs;
use super::output;
use super::output::{show_candidates, summary};
use super::progress::Progress;
use super::search_args::{Loaded, SearchArgs, seed};
use super::setup;

const HELP: &str = "\
/seed N         the seed of the next answers; -1 for random ones
/method NAME    how they are searched for, with settings: best-of-n:temp=0.7
/candidates N   show the N best of the last answer, and of those to come
/again          answer the last message anew, with the next seed
/clear          begin anew
/help           this list
/quit           end, as does the end of the input
Ctrl-C answers with the best so far; where nothing is written it ends.";

#[derive(Debug, clap::Args)]
pub struct ChatCommandArgs {
    #[command(flatten)]
    pub search: SearchArgs<true>,
    #[command(flatten)]
    pub form: FormArgs,
    /// Seed; -1 takes a random one for each answer
    #[arg(
        short,
        long,
        default_value_t = 0,
        help_heading = "Generation",
        allow_negative_numbers = true
    )]
    pub seed: i64,
    /// Show the N best candidates of each answer on stderr
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Output")]
    pub candidates: usize,
}

/// A conversation with what it is answered by.
struct Chat {
    aligner: Aligner,
    loaded: Loaded,
    options: AlignOptions,
    raw: bool,
    seed: Option<u64>,
    candidates: usize,
    system: Option<Message>,
    messages: Vec<Message>,
    last: Option<Alignment>,
}

/// Runs the command; the answer is the exit code.
pub fn run(args: &ChatCommandArgs) -> anyhow::Result<u8> {
    let mut options = args.search.search()?;
    let loaded = args.search.load()?;
    options.form = args.form.form(&loaded.model)?;
    let engine = args.search.engine(&loaded.model)?;
    let system = args.search.chat.system_prompt.as_ref();
    let mut chat = Chat {
        aligner: Aligner::new(Arc::clone(&loaded.model), engine)?,
        loaded,
        options,
        raw: args.search.chat.no_chat,
        seed: seed(args.seed),
        candidates: args.candidates,
        system: system.map(|text| Message::new("system", text)),
        messages: Vec::new(),
        last: None,
    };
    let terminal = std::io::stdin().is_terminal();
    if terminal {
        output::note("/help lists what there is beside messages");
    }
    for line in lines(terminal) {
        let line = match line {
            Ok(line) => line,
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                output::note("error: the line is no UTF-8");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let line = line.trim();
        match line.strip_prefix('/') {
            _ if line.is_empty() => {}
            Some("quit" | "exit") => break,
            Some(command) => {
                if let Err(error) = chat.command(command) {
                    output::note(&format!("error: {error}"));
                }
            }
            None => {
                chat.messages.push(Message::new("user", line));
                if !chat.answer()? {
                    chat.messages.pop();
                }
            }
        }
    }
    Ok(0)
}

/// The lines of the input, each asked for where somebody sits there.
fn lines(terminal: bool) -> impl Iterator<Item = std::io::Result<String>> {
    let mut lines = std::io::stdin().lock().lines();
    std::iter::from_fn(move || {
        if terminal {
            let mut out = std::io::stderr();
            let _ = write!(out, "> ").and_then(|()| out.flush());
        }
        lines.next()
    })
}

impl Chat {
    fn command(&mut self, command: &str) -> anyhow::Result<()> {
        let (name, value) = command.split_once(' ').unwrap_or((command, ""));
        let value = value.trim();
        match name {
            "seed" => {
                let asked = value.parse::<i64>();
                let wrong = |_| Error::field("seed", format!("{value:?} is no whole number"));
                self.seed = seed(asked.map_err(wrong)?);
            }
            "method" => {
                let method: MethodSpec = value.parse()?;
                method.validate(&self.options.rounds)?;
                self.options.method = method;
            }
            "candidates" => {
                let asked = value.parse::<usize>();
                let wrong = |_| Error::field("candidates", format!("{value:?} is no number"));
                self.candidates = asked.map_err(wrong)?;
                if let Some(last) = &self.last {
                    show_candidates(last, self.candidates);
                }
            }
            "again" => {
                let answered = self.messages.last().is_some_and(|m| m.role == "assistant");
                if !answered {
                    return Err(Error::Run("there is nothing to answer again".into()).into());
                }
                let (before, seed) = (self.messages.pop(), self.seed);
                self.seed = seed.map(|seed| seed.wrapping_add(1));
                if !self.answer()? {
                    self.messages.extend(before);
                    self.seed = seed;
                }
            }
            "clear" => {
                self.messages.clear();
                self.last = None;
            }
            "help" => output::note(HELP),
            other => {
                let reason = format!("no /{other}; /help lists what there is");
                return Err(Error::Run(reason).into());
            }
        }
        Ok(())
    }

    /// Answers the conversation; whether there is an answer.
    fn answer(&mut self) -> anyhow::Result<bool> {
        let prompt = match self.raw {
            true => Prompt::Raw(self.messages.last().map_or("", |m| &m.content).to_owned()),
            false => Prompt::Chat(self.system.iter().chain(&self.messages).cloned().collect()),
        };
        let mut options = self.options.clone();
        options.rounds.seed = self
            .seed
            .unwrap_or_else(|| u64::from(rand::random::<u32>()));
        let stop = Stop::new();
        setup::ask_on_interrupt(Some(stop.clone()));
        let mut progress = Progress::new(options.rounds.samples);
        let Loaded {
            reward, held_out, ..
        } = &mut self.loaded;
        let mut rewards = RunRewards::new(reward.as_mut(), held_out);
        let aligned = self
            .aligner
            .align(&prompt, &mut rewards, &options, &stop, &mut |event| {
                progress.show(event);
            });
        progress.close();
        setup::ask_on_interrupt(None);
        let answer = match aligned {
            Ok(answer) => answer,
            Err(error) => {
                output::note(&format!("error: {error}"));
                return Ok(false);
            }
        };
        show_candidates(&answer, self.candidates);
        let stopped = match (&answer.failure, answer.stop) {
            (Some(reason), _) => format!(", the reward failed: {reason}"),
            (None, StopReason::Interrupted) => ", stopped".into(),
            _ => String::new(),
        };
        output::note(&format!(
            "{}, seed {}{stopped}",
            summary(&answer),
            answer.seed
        ));
        output::print_out(format!("{}\n", answer.response).as_bytes())?;
        self.messages
            .push(Message::new("assistant", &answer.response));
        self.last = Some(answer);
        Ok(true)
    }
}
