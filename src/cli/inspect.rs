//! `inspect`: what a GGUF file is and what it can be used for, from its header and its head alone.

use std::path::{Path, PathBuf};

use aisp_llama::gguf::Gguf;
use aisp_llama::llama::{
    CacheType, SequenceMemory, classifier_loss, classifier_obstacle, decoder_obstacle,
    generator_obstacle, has_head, head_inside_obstacle, model_obstacle, repacked_on_this_cpu,
};
use aisp_llama::reward::{LinearHead, RewardText, TextOrigin, head_beside};
use aisp_llama::text::{acts, brief, printable};
use aisp_llama::{Error, Result};
use serde::Serialize;

use super::output;

#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// The file
    #[arg(value_name = "FILE.gguf")]
    pub file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    file: String,
    name: Option<String>,
    licence: Option<String>,
    architecture: String,
    /// llama.cpp's name of the mixture, and the type that most bytes have.
    file_type: Option<&'static str>,
    quantisation: String,
    parameters: u64,
    width: Option<u64>,
    vocabulary: Option<usize>,
    context: Option<u64>,
    /// Bytes of a sequence for each token of it, and whatever its length.
    sequence_token_bytes: u64,
    sequence_state_bytes: u64,
    tied_head: bool,
    logit_soft_cap: Option<f64>,
    logit_scale: Option<f64>,
    chat_template: bool,
    generator: Use,
    reward: Use,
    /// The text a reward sees.
    reward_text: Option<String>,
    /// Who says so, and whether the file states it.
    reward_text_from: Option<TextOrigin>,
    reward_text_stated: Option<bool>,
    /// What its scores lack.
    reward_warning: Option<&'static str>,
    reward_description: Option<String>,
    hint: Option<String>,
}

#[derive(Debug, Serialize)]
struct Use {
    usable: bool,
    reason: String,
}

/// Runs the command; the answer is the exit code.
pub fn run(args: &InspectArgs) -> anyhow::Result<u8> {
    let gguf = Gguf::open(&args.file).map_err(Error::gguf(&args.file))?;
    let report = report(&args.file, &gguf)?;
    let text = if args.json {
        json(&report)?
    } else {
        table(&report)
    };
    output::print_out(text.as_bytes())?;
    Ok(0)
}

/// Most characters of a text of the file.
const SHOWN: usize = 200;

fn report(path: &Path, gguf: &Gguf) -> Result<Report> {
    let obstacle = model_obstacle(path, gguf);
    let said = |key: &str| gguf.str(key).map(|text| brief(text, SHOWN));
    let number = |suffix: &str| gguf.arch_key(suffix).and_then(|v| v.as_f64());
    let whole = |suffix: &str| gguf.arch_key(suffix).and_then(|v| v.as_u64());
    let generator = match obstacle.clone().or_else(|| generator_obstacle(gguf)) {
        Some(reason) => Use {
            usable: false,
            reason,
        },
        None => Use {
            usable: true,
            reason: if gguf.chat_template().is_some() {
                "a causal language model with a chat template".into()
            } else {
                "a causal language model without a chat template: use --no-chat".into()
            },
        },
    };
    let beside = Some(head_beside(path)).filter(|head| head.is_file());
    let reward = match obstacle {
        Some(reason) => Use {
            usable: false,
            reason,
        },
        None => reward_use(path, gguf, beside.as_deref()),
    };
    let head = beside.map(|head| LinearHead::read(&head, None));
    let head = head.transpose()?;
    let text = (head.is_some() || has_head(gguf))
        .then(|| RewardText::of_file(gguf, head.as_ref()))
        .transpose()?;
    let blocks = block_quantisation(gguf);
    let memory = SequenceMemory::of(gguf, CacheType::F16, CacheType::F16);
    Ok(Report {
        file: path.display().to_string(),
        name: said("general.name"),
        licence: said("general.license"),
        architecture: said("general.architecture").unwrap_or_else(|| "unknown".into()),
        file_type: gguf.file_type_name(),
        quantisation: gguf.quantisation(),
        parameters: gguf.parameters(),
        width: whole("embedding_length"),
        vocabulary: gguf
            .get("tokenizer.ggml.tokens")
            .and_then(|v| v.as_str_array())
            .map(|tokens| tokens.len()),
        context: whole("context_length"),
        sequence_token_bytes: memory.token,
        sequence_state_bytes: memory.state,
        tied_head: gguf.tensor("output.weight").is_none(),
        logit_soft_cap: number("final_logit_softcapping"),
        logit_scale: number("logit_scale"),
        chat_template: gguf.chat_template().is_some(),
        hint: generator.usable.then(|| hint(&blocks)).flatten(),
        generator,
        reward,
        reward_text: text.as_ref().map(|(text, _)| text.to_string()),
        reward_text_from: text.as_ref().map(|(_, origin)| *origin),
        reward_text_stated: text.map(|(_, origin)| origin == TextOrigin::Stated),
        reward_warning: classifier_loss(gguf).filter(|_| head.is_none()),
        reward_description: said("aisp.reward.description"),
    })
}

/// The report as JSON that a terminal can show as well.
fn json(report: &Report) -> serde_json::Result<String> {
    let text = serde_json::to_string_pretty(report)? + "\n";
    let escaped = text.chars().map(|character| match acts(character) {
        true => format!("\\u{:04x}", u32::from(character)),
        false => character.into(),
    });
    Ok(escaped.collect())
}

/// Whether the file is a reward for -mr, and if not, what it needs.
fn reward_use(path: &Path, gguf: &Gguf, beside: Option<&Path>) -> Use {
    let told = |usable, reason| Use { usable, reason };
    if let Some(obstacle) = head_inside_obstacle(gguf) {
        return told(false, obstacle);
    }
    if let Some(head) = beside {
        return told(true, format!("with the head beside it, {}", head.display()));
    }
    let Some(obstacle) = classifier_obstacle(gguf) else {
        let reason = "a classification head that llama.cpp loads; two probe texts are scored when \
                      it is used";
        return told(true, reason.into());
    };
    let decodes = decoder_obstacle(gguf).is_none();
    if decodes && has_head(gguf) {
        let reason = "a head that is applied to the last token's pre-logits, outside llama.cpp";
        return match LinearHead::from_gguf(path, gguf, None) {
            Ok(_) => told(true, reason.into()),
            Err(error) => told(false, error.reason()),
        };
    }
    let also = match decodes {
        true => {
            ", asked as a judge (--reward judge:FILE), or by how likely it finds a response \
             (--reward likelihood:FILE)"
        }
        false => "",
    };
    let head = "with a head beside it (--reward 'head:FILE;head=HEAD.safetensors')";
    told(false, format!("{obstacle}; {head}{also}"))
}

/// The type that most bytes of the transformer blocks have.
fn block_quantisation(gguf: &Gguf) -> String {
    let mut bytes = std::collections::BTreeMap::<String, u64>::new();
    for tensor in gguf.tensors().iter().filter(|t| t.name.starts_with("blk.")) {
        *bytes.entry(tensor.kind.name().into_owned()).or_default() += tensor.bytes;
    }
    bytes
        .into_iter()
        .max_by_key(|(_, bytes)| *bytes)
        .map(|(name, _)| name)
        .unwrap_or_default()
}

/// A word on types that have no packed kernels for many rows at once.
fn hint(quantisation: &str) -> Option<String> {
    let floats = ["F32", "F16", "BF16"];
    let slow = repacked_on_this_cpu(quantisation) == Some(false) && !floats.contains(&quantisation);
    slow.then(|| {
        format!(
            "{quantisation} has no packed kernels for batches on this CPU; the same model in \
             Q4_0, Q4_K or IQ4_NL generates many candidates faster: aisp-llama quantize F16.gguf \
             OUT.gguf Q4_0"
        )
    })
}

fn table(report: &Report) -> String {
    let mut out = String::new();
    let mut row = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            out.push_str(&format!("{name:<15} {}\n", printable(&value)));
        }
    };
    let verdict = |u: &Use| {
        let answer = if u.usable { "yes" } else { "no" };
        Some(format!("{answer}: {}", u.reason))
    };
    row("file", Some(report.file.clone()));
    row("name", report.name.clone());
    row("licence", report.licence.clone());
    row("architecture", Some(report.architecture.clone()));
    let mixture = report
        .file_type
        .map_or(String::new(), |t| format!(" (file type {t})"));
    row(
        "quantisation",
        Some(format!("{}{mixture}", report.quantisation)),
    );
    row(
        "parameters",
        Some(format!("{:.1} M", report.parameters as f64 / 1e6)),
    );
    row("width d", report.width.map(|d| d.to_string()));
    row("vocabulary", report.vocabulary.map(|v| v.to_string()));
    row("context", report.context.map(|c| c.to_string()));
    let token = format!("{:.1} KB a token", report.sequence_token_bytes as f64 / 1e3);
    let state = format!(
        "{:.1} MB of recurrent state",
        report.sequence_state_bytes as f64 / 1e6
    );
    let sequence = match (report.sequence_token_bytes, report.sequence_state_bytes) {
        (_, 0) => token,
        (0, _) => state,
        _ => format!("{token}, {state}"),
    };
    row("a sequence", report.generator.usable.then_some(sequence));
    let tied = if report.tied_head { "yes" } else { "no" };
    row("tied head", report.generator.usable.then(|| tied.into()));
    row(
        "logit soft-cap",
        report.logit_soft_cap.map(|c| c.to_string()),
    );
    row("logit scale", report.logit_scale.map(|s| s.to_string()));
    let template = if report.chat_template { "yes" } else { "no" };
    row(
        "chat template",
        report.generator.usable.then(|| template.into()),
    );
    row("generator", verdict(&report.generator));
    row("reward", verdict(&report.reward));
    let origin = match report.reward_text_from {
        Some(TextOrigin::Stated) | None => String::new(),
        Some(origin) => format!(" ({origin})"),
    };
    row(
        "reward sees",
        report.reward_text.as_ref().map(|t| format!("{t}{origin}")),
    );
    row("but", report.reward_warning.map(Into::into));
    row("reward is", report.reward_description.clone());
    row("hint", report.hint.clone());
    out
}
