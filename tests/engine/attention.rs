//! Keys and values of other types: as exact as those of the usual one.

use std::sync::Arc;

use aisp_llama::llama::{Attention, CacheType, FlashAttention, Model, ModelOptions, Reader};

use crate::common::{SMOLLM2, path, smollm2};

/// By llama.cpp's name.
fn kind(name: &str) -> CacheType {
    let found = CacheType::ALL.into_iter().find(|(other, _)| *other == name);
    found.unwrap().1
}

#[test]
fn a_text_on_quantised_keys_has_the_same_bits_alone_and_among_others() {
    let model = smollm2();
    let texts = [
        "A warm film about a lost dog that finds its way home.",
        "A warm film about a lost dog.",
        "A warm film about a lost dog that finds its way home across the country, and then sleeps.",
    ];
    let texts = texts.map(|text| model.tokenize(text, true, false));
    let attention = Attention {
        flash: FlashAttention::On,
        keys: kind("q8_0"),
        values: kind("q8_0"),
    };
    let reader = |attention| Reader::new(Arc::clone(&model), 2, attention).unwrap();
    let together = reader(attention).log_p(&texts, &[1; 3]).unwrap();
    for (i, all) in together.iter().enumerate() {
        let mut fresh = reader(attention);
        let alone = fresh.log_p(&texts[i..=i], &[1]).unwrap();
        assert_eq!(alone[0].log_p, all.log_p, "text {i}");
    }
    let usual = reader(Attention::default()).log_p(&texts, &[1; 3]).unwrap();
    assert_ne!(usual[0].log_p, together[0].log_p);
    for (usual, quantised) in usual[0].log_p.iter().zip(&together[0].log_p) {
        assert!((usual - quantised).abs() < 0.5, "{usual} {quantised}");
    }
}

#[test]
fn a_model_tells_how_it_was_loaded() {
    let options = ModelOptions {
        gpu_layers: Some(0),
        mmap: false,
        ..ModelOptions::default()
    };
    let model = Model::load(&path(SMOLLM2), &options).unwrap();
    assert_eq!(*model.options(), options);
}
