//! The aligner: a model with its reward.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use aisp_llama::llama::{Message, Model, ModelOptions};
use aisp_llama::method::{MethodSpec, Rounds};
use aisp_llama::reward::{Reward, RewardLoader};
use aisp_llama::{
    AlignOptions, Alignment, Budget, EngineOptions, Prompt, Result, RunRewards, default_threads,
};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use serde_json::{Map, Value};

use crate::method::PythonMethod;
use crate::observe::{Observer, Stop};
use crate::raised;
use crate::reward::{Function, Raised, described};

/// A model with its reward.
#[pyclass(frozen)]
pub struct Aligner {
    inner: Mutex<Inner>,
    /// What a function in Python raised.
    raised: Raised,
}

struct Inner {
    aligner: aisp_llama::Aligner,
    reward: Box<dyn Reward>,
    held_out: Option<Box<dyn Reward>>,
}

/// What one call wants done.
struct Request {
    options: AlignOptions,
    method: Option<Py<PyAny>>,
    stop: aisp_llama::Stop,
    observe: Option<Py<PyAny>>,
}

#[pymethods]
impl Aligner {
    #[new]
    #[pyo3(signature = (model, reward, sample, *, held_out=None, gpu_layers=None, threads=None, context=None, parallel=None, chat_template=None))]
    #[allow(clippy::too_many_arguments)] // keywords, in Python
    fn new(
        py: Python<'_>,
        model: PathBuf,
        reward: &Bound<'_, PyAny>,
        sample: Py<PyAny>,
        held_out: Option<&Bound<'_, PyAny>>,
        gpu_layers: Option<u32>,
        threads: Option<usize>,
        context: Option<usize>,
        parallel: Option<usize>,
        chat_template: Option<String>,
    ) -> PyResult<Self> {
        let options = ModelOptions {
            gpu_layers,
            ..ModelOptions::default()
        };
        let mut engine = EngineOptions {
            threads: threads.unwrap_or_else(default_threads),
            context,
            ..EngineOptions::default()
        };
        engine.parallel = parallel.unwrap_or(engine.parallel);
        engine.chat.template = chat_template;
        let threads = engine.threads;
        let loaded = py.detach(|| Model::load(&model, &options).map(Arc::new));
        let model = loaded.map_err(raised)?;
        let raised_there = Raised::default();
        let mut load = |reward: &Bound<'_, PyAny>| {
            if reward.is_callable() {
                let function = reward.clone().unbind();
                let raised = Arc::clone(&raised_there);
                let reward = Function::new(function, sample.clone_ref(py), raised);
                return Ok(Box::new(reward) as Box<dyn Reward>);
            }
            let texts: Vec<String> = match reward.cast::<PyString>() {
                Ok(text) => vec![text.to_string()],
                Err(_) => reward.extract().map_err(|_| {
                    PyValueError::new_err("reward: a description, a list of them, or a function")
                })?,
            };
            let specs = texts.iter().map(|text| described(text));
            let specs = specs.collect::<Result<Vec<_>>>().map_err(raised)?;
            let generator = Some(Arc::clone(&model));
            let mut loader = RewardLoader::new(generator, options.clone(), threads);
            loader.chat = engine.chat.clone();
            py.detach(|| loader.load(&specs)).map_err(raised)
        };
        let inner = Inner {
            reward: load(reward)?,
            held_out: held_out.map(&mut load).transpose()?,
            aligner: aisp_llama::Aligner::new(Arc::clone(&model), engine).map_err(raised)?,
        };
        Ok(Self {
            inner: Mutex::new(inner),
            raised: raised_there,
        })
    }

    /// Width d of the pre-logits.
    #[getter]
    fn width(&self) -> PyResult<usize> {
        Ok(self.lock()?.aligner.model().width())
    }

    /// Tokens that there are.
    #[getter]
    fn vocabulary(&self) -> PyResult<usize> {
        Ok(self.lock()?.aligner.model().vocabulary())
    }

    /// Tokens of a text, special ones written in it among them.
    fn tokenize(&self, text: &str) -> PyResult<Vec<i32>> {
        Ok(self.lock()?.aligner.model().tokenize(text, false, true))
    }

    /// Text of tokens.
    fn detokenize(&self, tokens: Vec<i32>) -> PyResult<String> {
        let inner = self.lock()?;
        let model = inner.aligner.model();
        match tokens
            .iter()
            .find(|&&t| usize::try_from(t).map_or(true, |t| t >= model.vocabulary()))
        {
            Some(token) => Err(PyValueError::new_err(format!(
                "tokens: {token}; the vocabulary has {}",
                model.vocabulary()
            ))),
            None => Ok(model.text(&tokens)),
        }
    }

    /// One answer, as a dictionary.
    fn align<'py>(
        &self,
        py: Python<'py>,
        prompt: &Bound<'py, PyAny>,
        settings: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let prompt = read_prompt(prompt)?;
        let request = Request::read(settings)?;
        let alignment = self.one(py, &prompt, &request)?;
        Ok(pythonize::pythonize(py, &alignment)?)
    }

    /// Answers to many prompts, as dictionaries, an exception in place of one that has none.
    fn align_all<'py>(
        &self,
        py: Python<'py>,
        prompts: Vec<Bound<'py, PyAny>>,
        settings: &Bound<'py, PyDict>,
    ) -> PyResult<Vec<Option<Py<PyAny>>>> {
        let prompts: Vec<Prompt> = prompts.iter().map(read_prompt).collect::<PyResult<_>>()?;
        let request = Request::read(settings)?;
        if request.method.is_some() {
            return Err(PyValueError::new_err(
                "method: one of your own answers one prompt; call align for each",
            ));
        }
        let mut inner = self.lock()?;
        let mut answers: Vec<Option<Result<Alignment>>> = Vec::new();
        answers.resize_with(prompts.len(), || None);
        let mut observer = Observer::new(request.observe.as_ref(), &request.stop);
        let Inner {
            aligner,
            reward,
            held_out,
        } = &mut *inner;
        py.detach(|| {
            let mut rewards = RunRewards::new(reward.as_mut(), held_out);
            let mut done = |number: usize, answer| {
                answers[number] = Some(answer);
                Ok(())
            };
            let mut observe = |event: &_| observer.tell(event);
            aligner.align_all(
                &prompts,
                &mut rewards,
                &request.options,
                &request.stop,
                &mut observe,
                &mut done,
            )
        })
        .map_err(raised)?;
        self.raise(observer.failed)?;
        let answered = answers.iter().flatten().any(Result::is_ok);
        if let Some(interrupt) = observer.interrupt.filter(|_| !answered) {
            return Err(interrupt);
        }
        let shown = answers.into_iter().map(|answer| match answer {
            Some(Ok(alignment)) => Ok(Some(pythonize::pythonize(py, &alignment)?.unbind())),
            Some(Err(error)) => Ok(Some(raised(error).into_value(py).into_any())),
            None => Ok(None),
        });
        shown.collect()
    }
}

impl Aligner {
    fn lock(&self) -> PyResult<std::sync::MutexGuard<'_, Inner>> {
        self.inner
            .try_lock()
            .map_err(|_| PyRuntimeError::new_err("this aligner is at work in another thread"))
    }

    /// Raises what Python raised, here or in a reward or method.
    fn raise(&self, failed: Option<PyErr>) -> PyResult<()> {
        let kept = self.raised.lock().ok().and_then(|mut raised| raised.take());
        kept.or(failed).map_or(Ok(()), Err)
    }

    fn one(&self, py: Python<'_>, prompt: &Prompt, request: &Request) -> PyResult<Alignment> {
        let mut inner = self.lock()?;
        self.raise(None).ok();
        let width = inner.aligner.model().width();
        let Rounds {
            samples,
            iterations,
            seed,
            ..
        } = request.options.rounds;
        let method = request.method.as_ref().map(|object| {
            let shape = (samples, iterations);
            PythonMethod::new(
                object.bind(py),
                shape,
                width,
                seed,
                Arc::clone(&self.raised),
            )
        });
        let method = method.transpose()?;
        let mut observer = Observer::new(request.observe.as_ref(), &request.stop);
        let Inner {
            aligner,
            reward,
            held_out,
        } = &mut *inner;
        let answer = py.detach(|| {
            let mut rewards = RunRewards::new(reward.as_mut(), held_out);
            let (options, stop) = (&request.options, &request.stop);
            let mut observe = |event: &_| observer.tell(event);
            match method {
                Some(method) => {
                    let method = Box::new(method);
                    aligner.align_by(prompt, &mut rewards, options, method, stop, &mut observe)
                }
                None => aligner.align(prompt, &mut rewards, options, stop, &mut observe),
            }
        });
        self.raise(observer.failed)?;
        match (answer, observer.interrupt) {
            (Ok(answer), _) => Ok(answer),
            (Err(_), Some(interrupt)) => Err(interrupt),
            (Err(error), None) => Err(raised(error)),
        }
    }
}

/// A text that a model continues, or a list of `{"role": …, "content": …}`.
fn read_prompt(prompt: &Bound<'_, PyAny>) -> PyResult<Prompt> {
    if let Ok(text) = prompt.cast::<PyString>() {
        return Ok(Prompt::Raw(text.to_string()));
    }
    let messages: Vec<Message> = pythonize::depythonize(prompt)
        .map_err(|e| PyValueError::new_err(format!("prompt: {e}; want role and content")))?;
    Ok(Prompt::Chat(messages))
}

impl Request {
    /// Reads the keywords of a call; those that no other reads are the method's settings.
    fn read(keywords: &Bound<'_, PyDict>) -> PyResult<Self> {
        let mut rest = Map::new();
        let defaults = Rounds::default();
        let mut own = Self {
            options: AlignOptions {
                rounds: defaults,
                ..AlignOptions::default()
            },
            method: None,
            stop: aisp_llama::Stop::new(),
            observe: None,
        };
        let mut method = MethodSpec::default();
        let mut budget = Budget::default();
        for (name, value) in keywords {
            let name: String = name.extract()?;
            let named = |e: PyErr| PyValueError::new_err(format!("{name}: {e}"));
            let AlignOptions {
                rounds,
                target_reward,
                patience,
                stop_on_divergence,
                ..
            } = &mut own.options;
            match name.as_str() {
                "method" => match value.cast::<PyString>() {
                    Ok(text) => method = text.to_cow()?.parse().map_err(raised)?,
                    Err(_) => own.method = Some(value.unbind()),
                },
                "samples" => rounds.samples = value.extract().map_err(named)?,
                "iterations" => rounds.iterations = value.extract().map_err(named)?,
                "max_tokens" => rounds.max_tokens = value.extract().map_err(named)?,
                "seed" => rounds.seed = value.extract().map_err(named)?,
                "time_limit" => budget.seconds = value.extract().map_err(named)?,
                "target_reward" => *target_reward = value.extract().map_err(named)?,
                "patience" => *patience = value.extract().map_err(named)?,
                "stop_on_divergence" => *stop_on_divergence = value.extract().map_err(named)?,
                "stop" => own.stop = value.cast::<Stop>()?.get().0.clone(),
                "observe" => own.observe = (!value.is_none()).then(|| value.unbind()),
                _ => {
                    let value: Value = pythonize::depythonize(&value)
                        .map_err(|e| PyValueError::new_err(format!("{name}: {e}")))?;
                    rest.insert(name.replace('_', "-"), value);
                }
            }
        }
        own.options.budget = budget;
        own.options.method = method.with([&rest]).map_err(raised)?;
        own.options.validate().map_err(raised)?;
        Ok(own)
    }
}
