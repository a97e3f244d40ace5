//! The tables of a comparison.

use std::collections::HashSet;
use std::fmt::Write;

use super::rows::{Failure, Row, differences, pairs};
use super::stats::{Interval, paired_t};
use super::{By, Plan, is_degenerate};
use crate::math::{mean, standard_deviation};

/// `summary.md`: every method at every budget, and beside the first method.
///
/// Only cells that all methods have are counted, so that an unfinished comparison is a fair one. A
/// run that came to no answer is said to be one, is in no mean, and has no difference.
#[must_use]
pub fn summary(plan: &Plan, rows: &[Row], failures: &[Failure]) -> String {
    let answered = rows.iter().map(|r| (r.prompt, r.seed, r.method.as_str()));
    let failed = failures
        .iter()
        .map(|f| (f.prompt, f.seed, f.method.as_str()));
    let run: HashSet<(usize, u64, &str)> = answered.chain(failed).collect();
    let places = plan.cells().filter(|cell| cell.method == 0);
    let everywhere = |&(prompt, seed): &(usize, u64)| {
        let mut methods = plan.methods.iter();
        methods.all(|m| run.contains(&(prompt, seed, m.label())))
    };
    let cells: HashSet<(usize, u64)> = places
        .map(|cell| (cell.prompt, cell.seed))
        .filter(everywhere)
        .collect();
    let of = |name: &str| -> Vec<&Row> {
        let own = rows.iter().filter(|r| r.method == name);
        let mut own: Vec<&Row> = own
            .filter(|r| cells.contains(&(r.prompt, r.seed)))
            .collect();
        own.sort_by_key(|r| (r.prompt, r.seed));
        own
    };
    let complete: Vec<Vec<&Row>> = plan.methods.iter().map(|m| of(m.label())).collect();
    let mut out = String::new();
    heading(&mut out, plan, &complete, cells.len());
    if cells.is_empty() {
        out.push_str("\nNo prompt and seed has been run with every method yet.\n");
        return out;
    }
    by_budget(&mut out, plan, &complete);
    at_the_end(&mut out, plan, &complete);
    out.push_str(
        "\nA reward call counts as a candidate where a method makes more of them. The KL bound is \
         against the method's own unsteered draws; there is none for a search that continues its best candidates. \
         Nats a token are −log p of the answer by the model itself.\n",
    );
    means(&mut out, plan, &complete);
    out
}

fn heading(out: &mut String, plan: &Plan, complete: &[Vec<&Row>], cells: usize) {
    let unit = plan.by;
    let held_out = plan.held_out.as_ref();
    let _ = write!(
        out,
        "# {} prompts × {} seeds, {} {unit} each\n\n{}, reward {}{}; at most {} tokens, {} samples \
         an iteration. {cells} runs of each method are counted.\n\nDifferences are to `{}`, with \
         the 95 % interval of a paired t over prompts.\n",
        plan.prompts.len(),
        plan.seeds,
        plan.budget,
        plan.model.name,
        plan.reward,
        held_out.map_or(String::new(), |h| format!(", held out {h}")),
        plan.max_tokens,
        plan.samples,
        plan.methods[0].label(),
    );
    let failed = plan
        .methods
        .iter()
        .zip(complete)
        .filter_map(|(method, own)| {
            let count = cells.saturating_sub(own.len());
            (count > 0).then(|| format!("`{}` {count} of {cells}", method.label()))
        });
    let failed: Vec<String> = failed.collect();
    if !failed.is_empty() {
        let failed = failed.join(", ");
        let _ = write!(
            out,
            "\nFailed, and in no mean: {failed}. The `error` in results.jsonl says why. \
             Differences are over the runs that both methods have.\n"
        );
    }
}

/// Budgets at which the methods are compared: the budget and its halves, down to one iteration.
fn budgets(plan: &Plan) -> Vec<f64> {
    let least = match plan.by {
        By::Candidates => plan.samples as f64,
        By::Tokens => (plan.samples * plan.max_tokens) as f64,
        By::Seconds => plan.budget / 8.0,
    };
    let mut all = vec![plan.budget];
    while let Some(&last) = all.last() {
        let odd = plan.by == By::Candidates && last % 2.0 != 0.0;
        if last / 2.0 < least || odd {
            break;
        }
        all.push(last / 2.0);
    }
    all.reverse();
    all
}

fn by_budget(out: &mut String, plan: &Plan, complete: &[Vec<&Row>]) {
    let budgets = budgets(plan);
    let best = |row: &Row, budget: f64| row.at(plan.by, budget).and_then(|c| c.best);
    let _ = write!(out, "\n## Best reward by {}\n\n| method |", plan.by);
    for budget in &budgets {
        let _ = write!(out, " {budget} |");
    }
    out.push_str(" reaches the first method's final mean at |\n|---|");
    out.push_str(&"---|".repeat(budgets.len() + 1));
    out.push('\n');
    let goal = mean(&complete[0].iter().map(|r| r.reward).collect::<Vec<_>>());
    for (method, own) in plan.methods.iter().zip(complete) {
        let _ = write!(out, "| {} |", method.label());
        // The best so far is no answer where that is drawn.
        let drawn = method.settings().draws_its_answer();
        for &budget in &budgets {
            let values: Vec<f64> = own.iter().filter_map(|r| best(r, budget)).collect();
            let all = values.len() == own.len() && !own.is_empty() && !drawn;
            let difference = difference(own, &complete[0], |r| best(r, budget));
            let shown = match (method == &plan.methods[0], difference) {
                (false, Some(interval)) => format!(" ({})", show(interval)),
                _ => String::new(),
            };
            let _ = match all {
                true => write!(out, " {:.2}{shown} |", mean(&values)),
                false => write!(out, " – |"),
            };
        }
        // The smallest budget at which the mean over all runs is there.
        let costs = own.iter().flat_map(|r| &r.iterations);
        let mut steps: Vec<f64> = costs.map(|c| c.cost(plan.by)).collect();
        steps.sort_by(f64::total_cmp);
        steps.dedup();
        let reached = steps.into_iter().find(|&budget| {
            let values: Vec<f64> = own.iter().filter_map(|r| best(r, budget)).collect();
            values.len() == own.len() && !drawn && mean(&values) >= goal
        });
        let digits = if plan.by == By::Seconds { 1 } else { 0 };
        let reached = reached.map_or("never".into(), |budget| format!("{budget:.digits$}"));
        let _ = writeln!(out, " {reached} |");
    }
}

fn at_the_end(out: &mut String, plan: &Plan, complete: &[Vec<&Row>]) {
    out.push_str(
        "\n## At the end\n\n| method | best reward | difference | wins | price | difference | \
         degenerate | held out | difference |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for (method, own) in plan.methods.iter().zip(complete) {
        let first = method == &plan.methods[0];
        let versus = |value: &dyn Fn(&Row) -> Option<f64>| match first {
            true => "–".to_owned(),
            false => difference(own, &complete[0], value).map_or("–".into(), show),
        };
        let wins = win_rate(own, &complete[0]).filter(|_| !first);
        let reward = |r: &Row| Some(r.reward);
        let price = |r: &Row| r.price;
        let held_out = |r: &Row| r.held_out;
        let degenerate = |r: &Row| Some(100.0 * f64::from(u8::from(is_degenerate(&r.response))));
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} % | {} | {} |",
            method.label(),
            column(own, &reward, 3),
            versus(&reward),
            wins.map_or("–".into(), |w| format!("{:.0} %", 100.0 * w)),
            column(own, &price, 2),
            versus(&price),
            column(own, &degenerate, 0),
            column(own, &held_out, 3),
            versus(&held_out),
        );
    }
    out.push_str(
        "\nThe price is Σ (−log p − H) of the answer by the model itself, in nats a token: 0 on \
         average for the model's own samples at temperature 1 without truncation. Degenerate are \
         answers of fewer than five words or with one word three times in ten.\n\n\
         | method | diversity | coherence | nats a token | KL bound | tokens | reward calls | \
         seconds |\n|---|---|---|---|---|---|---|---|\n",
    );
    for (method, own) in plan.methods.iter().zip(complete) {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            method.label(),
            column(own, &|r| Some(r.diversity), 3),
            column(own, &|r| r.coherence, 3),
            column(own, &|r| r.surprise, 2),
            column(own, &|r| r.kl, 1),
            column(own, &|r| Some(r.usage.generated_tokens as f64), 0),
            column(own, &|r| Some(r.usage.reward_calls as f64), 0),
            column(own, &|r| Some(r.seconds), 2),
        );
    }
}

/// The mean over the rows that have a value.
fn column(rows: &[&Row], value: &dyn Fn(&Row) -> Option<f64>, digits: usize) -> String {
    let values: Vec<f64> = rows.iter().filter_map(|r| value(r)).collect();
    match values.is_empty() {
        true => "–".to_owned(),
        false => format!("{:.digits$}", mean(&values)),
    }
}

/// Where the distribution itself has moved to.
fn means(out: &mut String, plan: &Plan, complete: &[Vec<&Row>]) {
    out.push_str(
        "\n## Mean reward of an iteration\n\n| method | first | last | sample sd, first | sample \
         sd, last |\n|---|---|---|---|---|\n",
    );
    for (method, own) in plan.methods.iter().zip(complete) {
        if own.is_empty() {
            let _ = writeln!(out, "| {} | – | – | – | – |", method.label());
            continue;
        }
        let first: Vec<_> = own.iter().filter_map(|r| r.iterations.first()).collect();
        let last: Vec<f64> = own.iter().filter_map(|r| r.mean_last).collect();
        let pooled = |sds: Vec<f64>| mean(&sds.iter().map(|s| s * s).collect::<Vec<_>>()).sqrt();
        let _ = writeln!(
            out,
            "| {} | {:.3} | {:.3} | {:.3} | {:.3} |",
            method.label(),
            mean(&first.iter().filter_map(|c| c.mean).collect::<Vec<_>>()),
            mean(&last),
            pooled(first.iter().map(|c| c.sd).collect()),
            pooled(own.iter().map(|r| r.sd_last).collect()),
        );
    }
    let rewards: Vec<f64> = complete[0].iter().map(|r| r.reward).collect();
    if rewards.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "\nThe final best reward of `{}` has a standard deviation of {:.3} over its runs.",
        plan.methods[0].label(),
        standard_deviation(&rewards)
    );
}

fn show(interval: Interval) -> String {
    let Interval { mean, low, high } = interval;
    format!("{mean:+.2}, {low:+.2} to {high:+.2}")
}

fn difference(
    own: &[&Row],
    base: &[&Row],
    value: impl Fn(&Row) -> Option<f64>,
) -> Option<Interval> {
    paired_t(&differences(own, base, value))
}

/// Share of the pairs that are better than in `base`; equal ones count half. `None` without any.
fn win_rate(own: &[&Row], base: &[&Row]) -> Option<f64> {
    let points = pairs(own, base).into_iter().map(|(a, b)| {
        if a.reward == b.reward {
            0.5
        } else {
            f64::from(u8::from(a.reward > b.reward))
        }
    });
    let points: Vec<f64> = points.collect();
    (!points.is_empty()).then(|| mean(&points))
}
