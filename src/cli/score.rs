//! `score`: prompt/response pairs in, scores out.

use std::fmt;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use aisp_llama::llama::{ChatOptions, Token};
use aisp_llama::reward::{OwnedSample, ReadText, Sample, SampleError, Score, TextOrMessages};
use aisp_llama::{Error, text};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::flags::{LoadArgs, RewardArgs};
use super::{output, setup};

/// Most pairs of a batch: as many as a wide iteration has, so that a slow reward's time for a batch
/// is what it is in a run.
const BATCH: usize = 64;
/// Bytes of stdin that are looked at together.
const BUFFER: usize = 1 << 20;

#[derive(Debug, clap::Args)]
pub struct ScoreArgs {
    #[command(flatten)]
    pub reward: RewardArgs,
    #[command(flatten)]
    pub load: LoadArgs,
    /// Print a JSON object for every pair instead of a number
    #[arg(long)]
    pub json: bool,
    /// Print what the reward model reads before each score, as text and as token ids
    #[arg(long)]
    pub show: bool,
}

/// A line of stdin; what it says beside is ignored.
#[derive(Deserialize)]
struct PairLine {
    id: Option<Value>,
    prompt: Option<TextOrMessages>,
    messages: Option<TextOrMessages>,
    response: Option<TextOrMessages>,
}

/// A pair, and where it comes from.
struct Pair {
    line: usize,
    id: Option<Value>,
    text: OwnedSample,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Value>,
    prompt: &'a str,
    response: &'a str,
    reward: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parts: Vec<f64>,
    tokens: usize,
    truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reads: Option<Vec<Read>>,
}

/// A text as a reward model reads it.
#[derive(Debug, Serialize)]
struct Read {
    text: String,
    tokens: Vec<Token>,
}

impl From<ReadText> for Read {
    fn from(read: ReadText) -> Self {
        let ReadText { text, tokens } = read;
        Self { text, tokens }
    }
}

impl fmt::Display for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens: Vec<String> = self.tokens.iter().map(Token::to_string).collect();
        writeln!(f, "text   {}", self.text.escape_debug())?;
        writeln!(f, "tokens {}", tokens.join(" "))
    }
}

/// Runs the command; the answer is the exit code.
pub fn run(args: &ScoreArgs) -> anyhow::Result<u8> {
    let mut reward = setup::load_reward(&args.reward, &args.load, &ChatOptions::default(), None)?;
    output::note(&setup::told(reward.as_ref()));
    let mut read = 0;
    let mut scored = 0;
    let mut last = String::new();
    let mut input = Lines::new(io::stdin().lock());
    while let Some(lines) = input.held().map_err(Error::io(Path::new("stdin")))? {
        for lines in lines.chunks(BATCH) {
            let (pairs, wrong) = parse(lines);
            let samples: Vec<Sample<'_>> = pairs.iter().map(|pair| pair.text.sample()).collect();
            let scores = match samples.is_empty() {
                true => Vec::new(),
                false => reward.score(&samples)?,
            };
            let mut scores = scores.into_iter();
            let mut out = String::new();
            for pair in &pairs {
                read += 1;
                let (score, error) = outcome(scores.next());
                match &error {
                    None => scored += 1,
                    Some(error) => {
                        last.clone_from(error);
                        output::note(&format!("line {}: no reward: {error}", pair.line));
                    }
                }
                if score.truncated {
                    output::note(&format!(
                        "line {}: too long, its end was not read",
                        pair.line
                    ));
                }
                let reads = args.show.then(|| reward.reads(&pair.text.sample()));
                let reads = reads
                    .transpose()?
                    .map(|each| each.into_iter().map(Read::from));
                let reads = reads.map(Iterator::collect);
                out += &told(pair, score, error, reads, args.json)?;
                out.push('\n');
            }
            output::print_out(out.as_bytes())?;
            if let Some(error) = wrong {
                return Err(error.into());
            }
        }
    }
    if read > 0 && scored == 0 {
        return Err(Error::Reward(format!(
            "none of the {read} pairs could be scored, the last because: {last}"
        ))
        .into());
    }
    Ok(0)
}

/// What is printed of a pair.
fn told(
    pair: &Pair,
    score: Score,
    error: Option<String>,
    reads: Option<Vec<Read>>,
    json: bool,
) -> anyhow::Result<String> {
    let reward = Some(score.reward).filter(|_| error.is_none());
    if !json {
        let shown = reads.iter().flatten().map(Read::to_string);
        let number = reward.map_or("nan".into(), |n| n.to_string());
        return Ok(shown.chain([number]).collect());
    }
    Ok(serde_json::to_string(&Line {
        id: pair.id.as_ref(),
        prompt: &pair.text.prompt,
        response: &pair.text.response,
        reward,
        parts: score.parts,
        tokens: score.tokens,
        truncated: score.truncated,
        error,
        reads,
    })?)
}

fn outcome(result: Option<Result<Score, SampleError>>) -> (Score, Option<String>) {
    match result {
        Some(Ok(score)) if score.reward.is_finite() => (score, None),
        Some(Ok(score)) => {
            let error = format!("the reward is {}", score.reward);
            (score, Some(error))
        }
        Some(Err(error)) => (Score::default(), Some(error.to_string())),
        None => (Score::default(), Some("no score".into())),
    }
}

/// The pairs of some lines with their numbers, up to one that is none, and what is wrong with that.
fn parse(lines: &[Numbered]) -> (Vec<Pair>, Option<Error>) {
    let mut pairs = Vec::new();
    for (line, text) in lines {
        let text = match text::utf8(text.clone(), *line) {
            Ok(text) => text,
            Err(error) => return (pairs, Some(Error::io(Path::new("stdin"))(error))),
        };
        let parsed = serde_json::from_str(&text).map_err(|e| e.to_string());
        let pair = parsed.and_then(|pair: PairLine| {
            let text = OwnedSample::new(pair.messages.or(pair.prompt), pair.response)?;
            let (line, id) = (*line, pair.id);
            Ok(Pair { line, id, text })
        });
        match pair {
            Ok(pair) => pairs.push(pair),
            Err(reason) => {
                let reason =
                    format!("{reason}; every line is {{\"prompt\": \"…\", \"response\": \"…\"}}");
                let error = Error::field(format!("stdin, line {line}"), reason);
                return (pairs, Some(error));
            }
        }
    }
    (pairs, None)
}

/// A line with its number, from 1.
type Numbered = (usize, Vec<u8>);

/// Lines that are not blank, with their numbers: as many at a time as are there, so that a batch is
/// large where they come from a file, and nobody waits at the other end of a pipe.
struct Lines<R> {
    input: BufReader<R>,
    /// What has come of a line that has no end yet.
    begun: Vec<u8>,
    count: usize,
}

impl<R: io::Read> Lines<R> {
    fn new(input: R) -> Self {
        Self {
            input: BufReader::with_capacity(BUFFER, input),
            begun: Vec::new(),
            count: 0,
        }
    }

    /// The next ones; `None` at the end.
    fn held(&mut self) -> io::Result<Option<Vec<Numbered>>> {
        loop {
            let held = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                held => held?,
            };
            let whole = held.iter().rposition(|&byte| byte == b'\n');
            let taken = whole.map_or(held.len(), |end| end + 1);
            self.begun.extend_from_slice(&held[..taken]);
            let ended = taken == 0;
            self.input.consume(taken);
            if ended && self.begun.is_empty() {
                return Ok(None);
            }
            if ended || whole.is_some() {
                return Ok(Some(self.split()));
            }
            if self.begun.len() as u64 > text::MAX_LINE_BYTES {
                let line = format!("line {}", self.count + 1);
                return Err(text::too_long(&line, text::MAX_LINE_BYTES));
            }
        }
    }

    /// The lines of what has come.
    fn split(&mut self) -> Vec<Numbered> {
        let bytes = std::mem::take(&mut self.begun);
        let mut whole = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        if self.count == 0 {
            whole = whole.strip_prefix(text::MARK.as_bytes()).unwrap_or(whole);
        }
        let numbered = whole.split(|&byte| byte == b'\n').zip(self.count + 1..);
        let lines = numbered.map(|(line, number)| (number, line.trim_ascii().to_vec()));
        let lines: Vec<Numbered> = lines.collect();
        self.count += lines.len();
        let filled = lines.into_iter().filter(|(_, line)| !line.is_empty());
        filled.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its pieces one by one, as a pipe does.
    struct Pieces(Vec<&'static str>);

    impl io::Read for Pieces {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let piece = self.0.remove(0).as_bytes();
            into[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    #[test]
    fn lines_come_as_they_are_there() {
        let mut lines = Lines::new(Pieces(vec!["a\nb\n\nc", "d", "e\r\n", "f"]));
        let mut next = || lines.held().unwrap();
        let line = |number: usize, text: &str| (number, text.as_bytes().to_vec());
        assert_eq!(next(), Some(vec![line(1, "a"), line(2, "b")]));
        assert_eq!(next(), Some(vec![line(4, "cde")]));
        assert_eq!(next(), Some(vec![line(5, "f")]));
        assert_eq!(next(), None);
    }
}
