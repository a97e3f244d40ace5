//! What a model does to W z before it is a logit.
//!
//! logits = softcap(s·(W z + b)), softcap(x) = c·tanh(x/c): the logits of z + v follow from
//! finished ones and W·v alone, but for the rounding of the finished ones.
//!
//! Source: the `lm_head` part of llama.cpp's `src/models/*.cpp`.

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
const SCALE: &str = "logit_scale";
const CAP: &str = "final_logit_softcapping";
/// How near to ±1 a capped logit may come before it is taken to be there: its own rounding.
const NEAREST: f32 = 1.0 - f32::EPSILON;

/// The part of a model's head behind W and its bias: s and c.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutputHead {
    scale: f32,
    cap: Option<f32>,
}

impl OutputHead {
    /// Reads it from the header of a model.
    ///
    /// # Errors
    /// The key, or the architecture, that makes the head one that is not known here.
    pub fn read(gguf: &Gguf) -> Result<Self, String> {
        let architecture = gguf.architecture().unwrap_or("");
        let key = |name: &str| gguf.f64(&format!("{architecture}.{name}"));
        let scale = match key(SCALE) {
            // The first two have one that need not be in the file; the last scales z itself.
            None if ["grok", "minicpm", "minicpm3"].contains(&architecture) => {
                return Err(architecture.into());
            }
            None => 1.0,
            Some(0.0) => 1.0,
            Some(scale) if MULTIPLIED.contains(&architecture) => scale,
            Some(scale) if DIVIDED.contains(&architecture) => 1.0 / scale,
            Some(_) => return Err(format!("{architecture}.{SCALE}")),
        };
        let found = key(CAP);
        let cap = match architecture {
            "gemma3n" => Some(DEFAULT_CAP),
            "gemma2" | "gemma4" | "muse-glimmer" => found.or(Some(DEFAULT_CAP)),
            "gemma3" | "grok" => found,
            _ if found.is_some() => return Err(format!("{architecture}.{CAP}")),
            _ => None,
        };
        let cap = cap.filter(|&cap| cap != 0.0);
        Ok(Self {
            scale: scale as f32,
            cap: cap.map(|cap| cap as f32),
        })
    }

    /// What stands between W z and the logits: the key's name, without the architecture.
    #[must_use]
    pub fn obstacle(self) -> Option<&'static str> {
        match self.cap {
            Some(_) => Some(CAP),
            None => (self.scale != 1.0).then_some(SCALE),
        }
    }

    /// The finished `logit` with `shift`, its entry of W·v, added to W z.
    #[must_use]
    pub fn shifted(self, logit: f32, shift: f32) -> f32 {
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

    fn read(architecture: &str, keys: &[(&str, f32)]) -> Result<OutputHead, String> {
        let mut file = build().str("general.architecture", architecture);
        for (key, value) in keys {
            file = file.pair(format!("{architecture}.{key}"), 6, value.to_le_bytes());
        }
        OutputHead::read(&file.read().unwrap())
    }

    #[test]
    fn heads_are_read_by_architecture() {
        let plain = |scale, cap| OutputHead { scale, cap };
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
        assert_eq!(read("minicpm3", &[]).unwrap_err(), "minicpm3");
        let unknown = [
            (&scaled, "novel.logit_scale"),
            (&capped, "novel.final_logit_softcapping"),
        ];
        for (keys, key) in unknown {
            assert_eq!(read("novel", keys).unwrap_err(), key);
        }
    }

    #[test]
    fn what_is_not_w_z_alone_is_named() {
        assert_eq!(read("llama", &[]).unwrap().obstacle(), None);
        let scaled = read("granite", &[("logit_scale", 4.0)]).unwrap();
        assert_eq!(scaled.obstacle(), Some("logit_scale"));
        let capped = read("gemma2", &[]).unwrap();
        assert_eq!(capped.obstacle(), Some("final_logit_softcapping"));
    }

    #[test]
    fn a_shift_is_inside_the_scale_and_the_cap() {
        let head = |x: f32, scale: f32, cap: f32| cap * (scale * x / cap).tanh();
        for (z, v) in [(0.3_f32, 1.5_f32), (-40.0, 12.0), (2.0, -70.0), (25.0, 0.5)] {
            let shift = OutputHead {
                scale: 0.25,
                cap: Some(30.0),
            };
            let found = shift.shifted(head(z, 0.25, 30.0), v);
            let expected = head(z + v, 0.25, 30.0);
            assert!((found - expected).abs() < 1e-4, "{found} {expected}");
            let plain = OutputHead {
                scale: 0.25,
                cap: None,
            };
            assert_eq!(plain.shifted(0.25 * z, v), 0.25 * z + 0.25 * v);
        }
    }
}
