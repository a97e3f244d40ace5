//! What W·v does to a finished logit.
//!
//! logits = softcap(s·(W z + b)), softcap(x) = c·tanh(x/c): the perturbed ones follow from the
//! finished ones and W·v alone, but for the rounding of the host's product with W, which
//! quantises its input.
//!
//! Source: the `lm_head` part of llama.cpp's `src/models/*.cpp`.

use std::path::Path;

use crate::error::{Error, Result};
use crate::gguf::Gguf;

/// Architectures that multiply the logits by `logit_scale`.
const MULTIPLIED: [&str; 6] = [
    "command-r",
    "cohere2",
    "cohere2moe",
    "grok",
    "muse-glimmer",
    "talkie",
];
/// Architectures that divide them by it.
const DIVIDED: [&str; 6] = [
    "granite",
    "granitemoe",
    "granitehybrid",
    "granite_swa",
    "graniteswitch",
    "minicpm",
];
/// Where a soft cap is not in the file, but the architecture has one.
const DEFAULT_CAP: f64 = 30.0;
/// How near to ±1 a capped logit may come before it is taken to be there: its own rounding.
const NEAREST: f32 = 1.0 - f32::EPSILON;

/// The part of a model's head behind W.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LogitShift {
    scale: f32,
    cap: Option<f32>,
}

impl LogitShift {
    /// Reads it from the header of the model file `path`.
    ///
    /// # Errors
    /// [`Error::Model`] for an architecture whose head is not known.
    pub(super) fn read(path: &Path, gguf: &Gguf) -> Result<Self> {
        let architecture = gguf.architecture().unwrap_or("");
        let key = |suffix: &str| gguf.f64(&format!("{architecture}.{suffix}"));
        let unknown = |what: &str| {
            let reason = format!(
                "{architecture}{what}: the sampler tier does not know this head; choose \
                 AISP_TIER_EXACT"
            );
            Err(Error::model(path, reason))
        };
        let scale = match key("logit_scale") {
            // The first two have one that need not be in the file; the last scales z itself.
            None if ["grok", "minicpm", "minicpm3"].contains(&architecture) => return unknown(""),
            None => 1.0,
            Some(0.0) => 1.0,
            Some(scale) if MULTIPLIED.contains(&architecture) => scale,
            Some(scale) if DIVIDED.contains(&architecture) => 1.0 / scale,
            Some(_) => return unknown(".logit_scale"),
        };
        let found = key("final_logit_softcapping");
        let cap = match architecture {
            "gemma3n" => Some(DEFAULT_CAP),
            "gemma2" | "gemma4" | "muse-glimmer" => found.or(Some(DEFAULT_CAP)),
            "gemma3" | "grok" => found,
            _ if found.is_some() => return unknown(".final_logit_softcapping"),
            _ => None,
        };
        let cap = cap.filter(|&cap| cap != 0.0);
        Ok(Self {
            scale: scale as f32,
            cap: cap.map(|cap| cap as f32),
        })
    }

    /// `logit` with `shift`, its entry of W·v, added to W z.
    pub(super) fn shifted(self, logit: f32, shift: f32) -> f32 {
        let shift = self.scale * shift;
        match self.cap {
            None => logit + shift,
            Some(_) if shift == 0.0 => logit,
            Some(cap) => {
                let inner = (logit / cap).clamp(-NEAREST, NEAREST).atanh();
                cap * (inner + shift / cap).tanh()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::testing::build;

    fn read(architecture: &str, keys: &[(&str, f32)]) -> Result<LogitShift> {
        let mut file = build().str("general.architecture", architecture);
        for (key, value) in keys {
            file = file.pair(format!("{architecture}.{key}"), 6, value.to_le_bytes());
        }
        LogitShift::read(Path::new("m.gguf"), &file.read().unwrap())
    }

    #[test]
    fn heads_are_read_by_architecture() {
        let plain = |scale, cap| LogitShift { scale, cap };
        assert_eq!(read("llama", &[]).unwrap(), plain(1.0, None));
        let scaled = [("logit_scale", 4.0)];
        assert_eq!(read("command-r", &scaled).unwrap(), plain(4.0, None));
        for divided in ["granite", "granite_swa", "minicpm"] {
            assert_eq!(read(divided, &scaled).unwrap(), plain(0.25, None));
        }
        let capped = [("final_logit_softcapping", 20.0)];
        assert_eq!(read("gemma2", &capped).unwrap(), plain(1.0, Some(20.0)));
        assert_eq!(read("gemma3", &capped).unwrap(), plain(1.0, Some(20.0)));
        // llama.cpp's own cap where the file has none; this one does not read it at all.
        assert_eq!(read("gemma2", &[]).unwrap(), plain(1.0, Some(30.0)));
        assert_eq!(read("gemma3", &[]).unwrap(), plain(1.0, None));
        assert_eq!(read("gemma3n", &capped).unwrap(), plain(1.0, Some(30.0)));
        for (architecture, keys) in [
            ("novel", &scaled[..]),
            ("novel", &capped),
            ("minicpm3", &[]),
        ] {
            let message = read(architecture, keys).unwrap_err().to_string();
            assert!(message.contains("AISP_TIER_EXACT"), "{message}");
        }
    }

    #[test]
    fn a_shift_is_inside_the_scale_and_the_cap() {
        let head = |x: f32, scale: f32, cap: f32| cap * (scale * x / cap).tanh();
        for (z, v) in [(0.3_f32, 1.5_f32), (-40.0, 12.0), (2.0, -70.0), (25.0, 0.5)] {
            let shift = LogitShift {
                scale: 0.25,
                cap: Some(30.0),
            };
            let found = shift.shifted(head(z, 0.25, 30.0), v);
            let expected = head(z + v, 0.25, 30.0);
            assert!((found - expected).abs() < 1e-4, "{found} {expected}");
            let plain = LogitShift {
                scale: 0.25,
                cap: None,
            };
            assert_eq!(plain.shifted(0.25 * z, v), 0.25 * z + 0.25 * v);
        }
    }
}
