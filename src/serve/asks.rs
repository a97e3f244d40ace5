//! What a request asks for, from OpenAI's fields and llama-server's: which model, which prompt, how
//! it is answered, what is shown of that. Fields that are not known are ignored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::App;
use super::engine::QUEUE;
use super::failure::Failure;
use super::fields::Fields;
use super::logprobs;
use super::prompts::{self, Asked};
use super::settings::{self, From};
use super::watch::Bias;
use crate::align::AlignOptions;
use crate::llama::Grammar;
use crate::method::Rounds;
use crate::rollout::Form;

/// Most texts that end an answer: each is looked for at every token.
pub(super) const MOST_STOPS: usize = 64;
/// Most tokens with a bias, which is added at every token.
const MOST_BIASES: usize = 1024;
/// Most texts of a token that a reward is asked for.
const MOST_GUIDED: u64 = 256;
/// Most steps of an edit of the pre-logits.
const MOST_STEPS: u64 = 256;
/// Most logits of a mean: a quarter of a gigabyte.
const MOST_LOGITS: usize = 64 << 20;
/// Most alternatives of a token in all answers together.
const MOST_ALTERNATIVES: usize = 1024;

/// What the answer looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Text,
    /// llama-server's `/completion`.
    Native,
}

/// A request as it was understood.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) shape: Shape,
    pub(super) id: String,
    /// Seconds since 1970.
    pub(super) created: u64,
    /// The name that was asked.
    pub(super) model: String,
    pub(super) prompt: Asked,
    pub(super) options: AlignOptions,
    /// Which rewards; none for a plain answer.
    pub(super) rewards: Option<usize>,
    /// Answers wanted.
    pub(super) choices: usize,
    /// Candidates shown beside them.
    pub(super) shown: usize,
    pub(super) stream: bool,
    /// Whether a stream ends with what it took.
    pub(super) usage: bool,
    /// Whether the tokens' probabilities are wanted, with so many alternatives.
    pub(super) logprobs: Option<usize>,
    pub(super) bias: Bias,
}

impl Ask {
    pub(super) fn is_plain(&self) -> bool {
        self.rewards.is_none()
    }

    /// What the answers look like, with how the model marks its reasoning.
    pub(super) fn form(&self) -> Form {
        let turn = self.prompt.opened.turn.as_ref();
        Form {
            reasoning: turn.and_then(|turn| turn.reasoning),
            ..self.options.form.clone()
        }
    }
}

/// A conversation.
pub(super) fn chat(app: &App, body: &Value) -> Result<Ask, Failure> {
    let fields = Fields::of(body)?;
    let system = app.options.system_prompt.as_deref();
    let messages = prompts::messages(fields, system)?;
    let mut chat = app.options.engine.chat.clone();
    if let Some(effort) = fields.text("reasoning_effort")? {
        chat = chat.with(&Map::from_iter([match effort {
            "none" => ("enable_thinking".into(), false.into()),
            level => ("reasoning_effort".into(), level.into()),
        }]));
    }
    if let Some(variables) = fields.object("chat_template_kwargs")? {
        chat = chat.with(variables);
    }
    let prompt = prompts::converse(&app.model, &chat, messages)?;
    ask(app, fields, Shape::Chat, prompt, &form(app, fields)?)
}

/// Texts that are continued, one request for each.
pub(super) fn texts(app: &App, body: &Value, shape: Shape) -> Result<Vec<Ask>, Failure> {
    let fields = Fields::of(body)?;
    let prompts = prompts::prompts(&app.model, fields)?;
    if prompts.len() > QUEUE {
        let reason = format!("{} of them; at most {QUEUE}", prompts.len());
        return Err(Failure::field("prompt", reason));
    }
    if prompts.len() > 1 && fields.switch("stream")? {
        return Err(Failure::field(
            "stream",
            "one prompt at a time can be streamed",
        ));
    }
    let form = form(app, fields)?;
    let asks = prompts
        .into_iter()
        .map(|prompt| ask(app, fields, shape, prompt, &form));
    let asks: Vec<Ask> = asks.collect::<Result<_, _>>()?;
    let written = asks.iter().map(|ask| ask.options.rounds.candidates());
    let written = written.fold(0, usize::saturating_add);
    if written > app.options.max_candidates {
        let reason = format!(
            "{} prompts are {written} candidates; this server writes at most {}",
            asks.len(),
            app.options.max_candidates
        );
        return Err(Failure::field("prompt", reason));
    }
    Ok(asks)
}

fn ask(
    app: &App,
    fields: Fields<'_>,
    shape: Shape,
    prompt: Asked,
    form: &Form,
) -> Result<Ask, Failure> {
    let (model, profile) = match (shape, fields.text("model")?) {
        (Shape::Native, _) | (_, None) => (app.name().to_owned(), None),
        (_, Some(name)) => (name.to_owned(), app.profile(name)?),
    };
    let choices = match shape {
        Shape::Native => 1,
        Shape::Chat | Shape::Text => fields.count("n")?.unwrap_or(1),
    };
    if choices == 0 {
        return Err(Failure::field("n", "0; give at least 1"));
    }
    let mut options = match profile {
        Some(profile) => profile.options.clone(),
        None => {
            let mut plain = app.options.plain.clone();
            plain.rounds.samples = choices;
            plain.rounds.iterations = 1;
            plain
        }
    };
    common(app, fields, &mut options)?;
    let mut shown = 0;
    match (profile, fields.object("aisp")?) {
        (Some(_), Some(map)) => {
            shown = settings::apply(map, &mut options, From::Request)?.candidates;
        }
        (None, Some(map)) if !map.is_empty() => {
            let name = app.name();
            let reason = format!("{name} is the plain model; ask {name}:aisp");
            return Err(Failure::field("aisp", reason));
        }
        _ => {}
    }
    options.form = form.clone();
    let (bias, logprobs) = (bias(app, fields)?, logprobs_of(fields)?);
    let biased = ["logit_bias", "presence_penalty", "frequency_penalty"];
    if let (Some(_), Some((name, _))) = (profile, fields.first(&biased))
        && !bias.is_none()
    {
        let reason = "it goes with the plain model alone";
        return Err(Failure::field(name, reason));
    }
    let thinks = prompt.opened.thinks().is_some();
    let reasoning = app.options.engine.reasoning.budget;
    let length = prompt.opened.tokens.len() + if thinks { reasoning } else { 0 };
    if length >= app.context {
        return Err(Failure::too_long(length, app.context));
    }
    let rounds = &mut options.rounds;
    rounds.max_tokens = rounds.max_tokens.min(app.context - length);
    let budget = rounds.candidates();
    let alternatives = choices.saturating_mul(logprobs.map_or(0, |count| count + 1));
    if alternatives > MOST_ALTERNATIVES {
        let reason = format!("{choices} answers with so many alternatives; ask for fewer of them");
        return Err(Failure::field("logprobs", reason));
    }
    if budget > app.options.max_candidates {
        let reason = format!(
            "{} with {} iterations are {budget} candidates; this server writes at most {}",
            rounds.samples, rounds.iterations, app.options.max_candidates
        );
        let field = if profile.is_some() { "samples" } else { "n" };
        return Err(Failure::field(field, reason));
    }
    options.validate()?;
    if choices > budget {
        let reason = format!("{choices}, and the search writes {budget} candidates");
        return Err(Failure::field("n", reason));
    }
    bounded(app, &options)?;
    if let Some(profile) = profile {
        app.rewards[profile.rewards].check(&options)?;
    }
    let stream_options = fields.object("stream_options")?.map(Fields);
    Ok(Ask {
        shape,
        id: format!("{}{:032x}", prefix(shape), rand::random::<u128>()),
        created: now(),
        model,
        prompt,
        rewards: profile.map(|profile| profile.rewards),
        choices,
        options,
        shown,
        stream: fields.switch("stream")?,
        usage: stream_options.map_or(Ok(false), |all| all.switch("include_usage"))?,
        logprobs,
        bias,
    })
}

/// Refuses what would keep the engine from everybody else: rewards asked for too many texts a token, too
/// many steps of an edit, a mean in logits that has no room.
pub(super) fn bounded(app: &App, options: &AlignOptions) -> Result<(), Failure> {
    let method = &options.method;
    for (name, most) in [("guided", MOST_GUIDED), ("steps", MOST_STEPS)] {
        if let Some(asked) = method.all()[name].as_u64().filter(|&asked| asked > most) {
            return Err(Failure::field(
                name,
                format!("{asked}; at most {most} here"),
            ));
        }
    }
    let logits = options
        .rounds
        .max_tokens
        .saturating_mul(app.model.vocabulary());
    if method.entry().name == "misvo" && logits > MOST_LOGITS {
        let most = MOST_LOGITS / app.model.vocabulary().max(1);
        let reason = format!(
            "{}; at most {most} with misvo here",
            options.rounds.max_tokens
        );
        return Err(Failure::field("max_tokens", reason));
    }
    Ok(())
}

/// What requests of all shapes say of the answer. Settings that the method does not have are not
/// heard: they are in every client's requests.
fn common(app: &App, fields: Fields<'_>, options: &mut AlignOptions) -> Result<(), Failure> {
    let rounds = &mut options.rounds;
    let lengths = ["max_completion_tokens", "max_tokens", "n_predict"];
    if let Some((name, _)) = fields.first(&lengths) {
        rounds.max_tokens = match fields.whole(name)? {
            Some(-1) | None => Rounds::TO_THE_END,
            Some(count) => match usize::try_from(count) {
                Ok(count) if count > 0 => count,
                _ => return Err(Failure::field(name, format!("{count}; give at least 1"))),
            },
        };
    }
    rounds.seed = match (fields.whole("seed")?, app.options.seed) {
        (None, Some(seed)) => seed,
        (asked, _) => settings::seed(asked),
    };
    let mut heard = Map::new();
    let settings = [
        ("temperature", "temp"),
        ("top_k", "top-k"),
        ("top_p", "top-p"),
        ("min_p", "min-p"),
    ];
    for (field, setting) in settings {
        if let Some(value) = fields.number(field)?
            && options.method.reads(setting)
        {
            let value = match setting {
                "top-k" => json!(value.max(0.0) as u64),
                _ => json!(value),
            };
            heard.insert(setting.into(), value);
        }
    }
    options.method = options.method.clone().with([&heard])?;
    Ok(())
}

fn form(app: &App, fields: Fields<'_>) -> Result<Form, Failure> {
    let stop = fields.texts("stop")?;
    if stop.len() > MOST_STOPS {
        let reason = format!("{} of them; at most {MOST_STOPS}", stop.len());
        return Err(Failure::field("stop", reason));
    }
    if stop.iter().any(String::is_empty) {
        return Err(Failure::field("stop", "an empty text; it is everywhere"));
    }
    Ok(Form {
        stop,
        ignore_end: fields.switch("ignore_eos")?,
        grammar: grammar(app, fields)?,
        ..Form::default()
    })
}

/// The grammar that `response_format`, or llama-server's `json_schema`, asks for.
fn grammar(app: &App, fields: Fields<'_>) -> Result<Option<Arc<Grammar>>, Failure> {
    const NAME: &str = "response_format";
    if fields.value("grammar").is_some_and(|value| value != "") {
        let reason = "grammars are not taken in requests; use response_format";
        return Err(Failure::field("grammar", reason));
    }
    let schema = match (
        fields.object(NAME)?.map(Fields),
        fields.value("json_schema"),
    ) {
        (None, None) => return Ok(None),
        (None, Some(schema)) => schema.clone(),
        (Some(format), _) => match format.text("type")?.unwrap_or_default() {
            "text" => return Ok(None),
            "json_object" => match format.value("schema") {
                Some(schema) => schema.clone(),
                None => json!({"type": "object"}),
            },
            "json_schema" => {
                let inner = format.object("json_schema")?.map(Fields);
                let schema = inner.and_then(|inner| inner.value("schema"));
                let missing = || Failure::field(NAME, "json_schema.schema: missing");
                schema.ok_or_else(missing)?.clone()
            }
            other => {
                let reason =
                    format!("no type {other:?}; there are text, json_object and json_schema");
                return Err(Failure::field(NAME, reason));
            }
        },
    };
    if !schema.is_object() {
        return Err(Failure::field(NAME, format!("{schema} is no JSON schema")));
    }
    let grammar = Grammar::json_schema(Arc::clone(&app.model), &schema);
    let grammar = grammar.map_err(|error| Failure::field(NAME, error.reason()))?;
    Ok(Some(Arc::new(grammar)))
}

/// `logit_bias` as a map, or as llama-server's list of pairs, of tokens or texts; false forbids.
fn bias(app: &App, fields: Fields<'_>) -> Result<Bias, Failure> {
    const NAME: &str = "logit_bias";
    let wrong = || {
        Failure::field(
            NAME,
            "must be {\"TOKEN\": NUMBER} or [[TOKEN or TEXT, NUMBER]]",
        )
    };
    let mut pairs: Vec<(Value, &Value)> = Vec::new();
    match fields.value(NAME) {
        None => {}
        Some(Value::Object(map)) => {
            for (token, bias) in map {
                let id = token.parse::<i64>().map_or(json!(token), |id| json!(id));
                pairs.push((id, bias));
            }
        }
        Some(Value::Array(list)) => {
            for pair in list {
                match pair.as_array().map(Vec::as_slice) {
                    Some([token, bias]) => pairs.push((token.clone(), bias)),
                    _ => return Err(wrong()),
                }
            }
        }
        Some(_) => return Err(wrong()),
    }
    let mut tokens = BTreeMap::new();
    for (token, bias) in pairs {
        let bias = match bias {
            Value::Bool(false) => f32::NEG_INFINITY,
            other => other.as_f64().ok_or_else(wrong)? as f32,
        };
        match &token {
            Value::String(text) => {
                let all = app.model.tokenize(text, false, false).into_iter();
                tokens.extend(all.map(|token| (token, bias)));
            }
            other => {
                let token = prompts::token(&app.model, other).ok_or_else(wrong)?;
                tokens.insert(token, bias);
            }
        }
    }
    if tokens.len() > MOST_BIASES {
        let reason = format!("{} tokens; at most {MOST_BIASES}", tokens.len());
        return Err(Failure::field(NAME, reason));
    }
    let penalty = |name| Ok::<_, Failure>(fields.number(name)?.unwrap_or(0.0) as f32);
    Ok(Bias {
        tokens: tokens.into_iter().collect(),
        presence: penalty("presence_penalty")?,
        frequency: penalty("frequency_penalty")?,
    })
}

fn logprobs_of(fields: Fields<'_>) -> Result<Option<usize>, Failure> {
    let (name, count) = match fields.value("logprobs") {
        Some(Value::Bool(true)) => ("top_logprobs", fields.count("top_logprobs")?),
        Some(Value::Bool(false)) => return Ok(None),
        Some(_) => ("logprobs", fields.count("logprobs")?),
        None => match fields.count("n_probs")? {
            None | Some(0) => return Ok(None),
            count => ("n_probs", count),
        },
    };
    match count.unwrap_or(0) {
        count if count > logprobs::MOST => {
            let reason = format!("{count}; at most {}", logprobs::MOST);
            Err(Failure::field(name, reason))
        }
        count => Ok(Some(count)),
    }
}

fn prefix(shape: Shape) -> &'static str {
    match shape {
        Shape::Chat => "chatcmpl-",
        Shape::Text | Shape::Native => "cmpl-",
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}
