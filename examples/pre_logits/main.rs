//! How near real pre-logits are to the Gaussians of one covariance, a group for each next token,
//! whose posterior a softmax head is. Prints tables and draws `docs/pre-logits.svg`.
//!
//! Pre-logits z of tokens drawn at temperature 1 are grouped by the token. In the first k
//! principal components of all z: squared distances of z from its group's mean, under the pooled
//! covariance S of the groups, against χ²; the groups' covariances against S; and the direction
//! S⁻¹(m_a − m_b) that tells Gaussians apart against W_a − W_b, what the head uses.
//!
//! ```text
//! cargo run --release --example pre_logits -- FILE.gguf… PROMPTS.jsonl… OUTPUT.svg
//! ```

mod groups;
mod linear;
mod positions;
mod shape;

use std::path::Path;
use std::sync::Arc;

use aisp_llama::llama::{Model, ModelOptions};
use aisp_llama::ndarray::{Axis, s};
use aisp_llama::report::chart::{Panel, RGBColor, Series, draw};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use groups::Groups;
use linear::components;
use positions::{FREQUENT, Frequent, generate};
use shape::Shape;

/// Principal components.
const COMPONENTS: [usize; 2] = [16, 32];
/// Deals of residuals to other groups, and of rows of W to other tokens.
const SHUFFLES: usize = 200;
const COLORS: [RGBColor; 2] = [RGBColor(0x2f, 0x8f, 0x4e), RGBColor(0x4c, 0x78, 0xa8)];
const GREY: RGBColor = RGBColor(0x72, 0x6a, 0x5f);

fn main() -> anyhow::Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let output = arguments.pop().filter(|name| name.ends_with(".svg"));
    let (models, files): (Vec<_>, Vec<_>) =
        arguments.iter().partition(|name| name.ends_with(".gguf"));
    let (Some(output), false, false) = (output, models.is_empty(), files.is_empty()) else {
        anyhow::bail!("usage: pre_logits FILE.gguf… PROMPTS.jsonl… OUTPUT.svg");
    };
    let mut prompts = Vec::new();
    for file in files {
        for line in std::fs::read_to_string(file)?.lines() {
            let value: serde_json::Value = serde_json::from_str(line)?;
            let text = value["prompt"].as_str().map(str::to_owned);
            prompts.push(text.ok_or_else(|| anyhow::anyhow!("{file}: a line without prompt"))?);
        }
    }
    let mut panels = panels();
    for (model, color) in models.into_iter().zip(COLORS.into_iter().cycle()) {
        study(Path::new(model), &prompts, color, &mut panels)?;
    }
    let title = "Pre-logits by the token that was drawn, in 16 principal components";
    std::fs::write(output, draw(title, &panels)?)?;
    Ok(())
}

/// All of one model: the tables, and its lines in the panels.
fn study(
    path: &Path,
    prompts: &[String],
    color: RGBColor,
    panels: &mut [Panel],
) -> anyhow::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let options = ModelOptions {
        gpu_layers: Some(0),
        ..ModelOptions::default()
    };
    let model = Arc::new(Model::load(path, &options)?);
    let (tokens, z) = generate(&model, prompts)?;
    let frequent = Frequent::new(&model, &tokens, &z)?;
    if frequent.sizes.len() < 3 {
        anyhow::bail!("too few tokens were drawn {FREQUENT} times; give more prompts");
    }
    println!(
        "## {name}\n\n{} positions, d = {}; {} tokens were drawn at least {FREQUENT} times, at {} \
         positions: {}\n",
        tokens.len(),
        z.ncols(),
        frequent.sizes.len(),
        frequent.z.nrows(),
        frequent.texts.join(" ")
    );
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let largest = COMPONENTS.iter().copied().max().unwrap_or_default();
    let (basis, variances) = components(&z, largest, &mut rng);
    let total: f64 = z.var_axis(Axis(0), 1.0).sum();
    for k in COMPONENTS {
        let q = basis.slice(s![.., ..k]).to_owned();
        let share = variances[..k].iter().sum::<f64>() / total;
        println!(
            "### {k} components, {:.0} % of the variance\n",
            100.0 * share
        );
        let groups = Groups::new(frequent.z.dot(&q), &frequent.sizes);
        let head = q.t().dot(&frequent.head);
        let shape = Shape::of(&groups, k, &mut rng);
        shape.print(k);
        let directions = groups.directions(&head, &mut rng);
        directions.print();
        if k == COMPONENTS[0] {
            shape.plot(&name, color, k, panels);
            directions.plot(color, panels);
        }
    }
    println!("### All {} dimensions\n", z.ncols());
    let groups = Groups::new(frequent.z.clone(), &frequent.sizes);
    groups.directions(&frequent.head, &mut rng).print();
    Ok(())
}

fn panels() -> Vec<Panel> {
    let panel = |x_name, y_name| Panel {
        x_name,
        y_name,
        x_range: None,
        y_range: None,
        series: Vec::new(),
    };
    vec![
        panel("quantile of χ²", "squared distance"),
        panel("tokens, the nearest first", "covariances"),
        panel("pairs of tokens, the worst first", "correlation"),
    ]
}

fn line(name: String, color: RGBColor, points: Vec<(f64, f64)>) -> Series {
    Series {
        name,
        color,
        width: 1,
        points,
    }
}
