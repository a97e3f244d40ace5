//! A run from its options and its model file: what cannot be is refused before anything is allocated
//! for it.

use std::ffi::c_int;
use std::path::Path;

use super::session::{Failure, Parts, Session, Tier};
use super::{aisp_host, aisp_options, argument};
use crate::control::{
    AutoOr, NoiseSettings, PriceRule, PriceSettings, SamplerSettings, SearchSettings, Start, Update,
};
use crate::gguf::Gguf;
use crate::output::{Decoder, OutputHead, OutputRows};

/// Most candidates of one iteration.
const MAX_SAMPLES: u32 = 4096;
/// Most positions that are perturbed.
const MAX_HORIZON: u32 = 1 << 17;
/// Most of them in all candidates of an iteration, which take eight bytes each.
const MAX_POSITIONS: u64 = 1 << 26;
/// Most pre-logits of the mean, a float each.
const MAX_MEAN: u64 = 1 << 28;

/// A session; its options and functions are those that the host gave.
pub(super) fn create(
    options: &aisp_options,
    host: aisp_host,
    path: &Path,
) -> Result<Session, Failure> {
    let Some(decode) = host.decode else {
        return argument("aisp_create: host.decode is NULL");
    };
    for (field, value, most) in [
        ("samples", options.samples, MAX_SAMPLES),
        ("iterations", options.iterations, u32::MAX),
        ("horizon", options.horizon, MAX_HORIZON),
    ] {
        if value == 0 || value > most {
            let reason = format!("aisp_create: {field} is {value}; give 1 to {most}");
            return argument(reason);
        }
    }
    let positions = u64::from(options.samples) * u64::from(options.horizon);
    if positions > MAX_POSITIONS {
        return argument(format!(
            "aisp_create: {positions} positions in an iteration; give samples and horizon whose product \
             is at most {MAX_POSITIONS}"
        ));
    }
    let gguf = Gguf::open(path).map_err(|e| Failure::Model(format!("{}: {e}", path.display())))?;
    let output = OutputRows::open(path, &gguf, |kind| {
        let kind = c_int::try_from(kind.0).ok()?;
        // SAFETY: the host's function; NULL only asks.
        let known = unsafe { decode(kind, std::ptr::null(), std::ptr::null_mut(), 0) } != 0;
        known.then(|| -> Decoder {
            Box::new(move |bytes, out| {
                let (data, values) = (bytes.as_ptr().cast(), out.as_mut_ptr());
                // SAFETY: whole rows of this type, and room for their values.
                unsafe { decode(kind, data, values, out.len() as i64) != 0 }
            })
        })
    })?;
    let tier = match options.tier {
        0 => Tier::Exact,
        1 => Tier::Sampler(OutputHead::read(&gguf).map_err(|what| {
            Failure::Model(format!(
                "{}: {what}: the sampler tier does not know this head; choose AISP_TIER_EXACT",
                path.display()
            ))
        })?),
        other => return argument(format!("aisp_create: tier {other} is no aisp_tier")),
    };
    let noise = NoiseSettings {
        sigma: match options.sigma {
            sigma if sigma < 0.0 => AutoOr::Auto,
            sigma => AutoOr::Number(sigma),
        },
        logit_sd: options.logit_sd,
        null_candidate: options.null_candidate != 0,
    };
    // What the model itself says of a token, the library does not see.
    let price = PriceSettings {
        price: PriceRule::Off,
        ..PriceSettings::default()
    };
    let (horizon, width) = (options.horizon as usize, output.width());
    if horizon as u64 * width as u64 > MAX_MEAN {
        let most = MAX_MEAN / width as u64;
        let reason =
            format!("aisp_create: horizon is {horizon}; give at most {most} for this model");
        return argument(reason);
    }
    let spread = || output.spread().map_err(Failure::from);
    let controller = match options.method {
        0 => SearchSettings {
            noise,
            steer: options.steer,
            elites: options.elites as usize,
            fresh: options.fresh,
            start: Start::Noise,
            price,
            ..SearchSettings::default()
        }
        .controller(horizon, width, options.seed, spread)?,
        1 => SamplerSettings {
            noise,
            lambda: match options.lambda {
                lambda if lambda <= 0.0 => AutoOr::Auto,
                lambda => AutoOr::Number(lambda),
            },
            ess: options.ess,
            alpha: options.alpha,
            unmasked: options.mask_past_end == 0,
            price,
            update: Update::Weights,
            ..SamplerSettings::default()
        }
        .controller(horizon, width, options.seed, spread)?,
        other => return argument(format!("aisp_create: method {other} is no aisp_method")),
    };
    Ok(Session::new(Parts {
        controller,
        output,
        tier,
        samples: options.samples,
        iterations: options.iterations,
    }))
}
