//! The programs of a run: first weights, the step; and the model that it leaves.

use super::budget::CheckpointConfig;
use super::config::Config;
use super::data::Source;
use crate::compile::{Options, compile};
use crate::formats::tokenizer_files::TokenizerFiles;
use crate::formats::{Gguf, Safetensors, read_text, safetensors, write_whole};
use crate::ledger::model_flops;
use crate::models::decoder::{DecoderConfig, Entry, Start, Weights};
use crate::optim::{Recipe, State, Weight, train_step};
use std::collections::BTreeMap;
use std::path::Path;
use tilewright_ir::array::Array;
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::dsl::{Graph, Initial, Key, Tensor, Tensors, stack};
use tilewright_ir::graph::Module;
use tilewright_ir::types::{Bindings, DType, Type};
use tilewright_passes::mixed::{Policy, mixed};
use tilewright_runtime::checksum::Checksum;

/// A model that learns: its weights, or adapters beside weights that stay.
pub(super) struct Learner {
    pub(super) model: DecoderConfig,
    /// Tokens of a sequence.
    pub(super) context: usize,
    /// What learns.
    pub(super) learns: Vec<Entry>,
    /// What stays, with values.
    pub(super) frozen: Vec<(Entry, Array)>,
    /// First values of what learns.
    pub(super) first: Vec<Array>,
}

/// A model that a run starts from.
pub(super) struct Origin {
    model: DecoderConfig,
    weights: Vec<Array>,
    /// Its tokenizer, if it has one.
    pub(super) tokenizer: Option<TokenizerFiles>,
}

impl Origin {
    /// Reads a folder, or a GGUF file, whose weights become f32.
    ///
    /// Errors: those of the files; `model-config`, `weight-mismatch`.
    pub(super) fn open(path: &Path) -> Result<Origin, Diagnostic> {
        if !path.is_dir() {
            let gguf = Gguf::open(path)?;
            let (model, weights) = DecoderConfig::from_gguf(&gguf)?;
            return Ok(Origin { model, weights, tokenizer: Some(TokenizerFiles::from_gguf(&gguf)?) });
        }
        let config = path.join("config.json");
        let model = DecoderConfig::from_json(&config.display().to_string(), &read_text(&config)?)?;
        let weights = read_weights(&path.join(WEIGHTS), &model)?;
        let tokenizer = path.join("tokenizer.json");
        let tokenizer = tokenizer.exists().then(|| TokenizerFiles::open(&tokenizer)).transpose()?;
        Ok(Origin { model, weights, tokenizer })
    }

    /// The most tokens that it takes.
    pub(super) fn context(&self) -> usize {
        self.model.context
    }

    /// Its weights, which stay beside adapters, as what a run learns from; `path` is where they are.
    pub(super) fn source(&self, path: &Path) -> Source {
        let mut sum = Checksum::new();
        self.weights.iter().for_each(|array| sum.add(array.bytes()));
        Source { name: path.display().to_string(), checksum: sum.finish() }
    }
}

impl Learner {
    /// The model of `config`, with its first weights: drawn, or those of the model that it is from.
    ///
    /// Errors: `train-config`, `model-config`; those of the compiler.
    pub(super) fn new(
        config: &Config,
        from: Option<Origin>,
        vocabulary: usize,
        options: &Options,
    ) -> Result<Learner, Diagnostic> {
        let key_of_weights = 0;
        let checkpoint = config.train.checkpoint == CheckpointConfig::Blocks;
        let Some(from) = from else {
            let model = DecoderConfig { checkpoint, ..config.model.sized(vocabulary)? };
            let context = model.context;
            let learns = model.entries();
            let first = draw(&learns, config.seed, key_of_weights, options)?;
            return Ok(Learner { model, context, learns, frozen: Vec::new(), first });
        };
        let Origin { mut model, weights, .. } = from;
        model.checkpoint = checkpoint;
        config.model.nothing_but_from()?;
        let context = config.model.context.unwrap_or(model.context);
        if context > model.context {
            let message = format!("model.context: expected at most {}, found {context}", model.context);
            return Err(Diagnostic::new("train-config", message));
        }
        model.lora = config.lora();
        let entries = model.entries();
        if model.lora.is_none() {
            return Ok(Learner { model, context, learns: entries, frozen: Vec::new(), first: weights });
        }
        let learns = model.adapters();
        let first = draw(&learns, config.seed, key_of_weights, options)?;
        Ok(Learner { model, context, learns, frozen: entries.into_iter().zip(weights).collect(), first })
    }

    /// Sizes of the inputs of a step.
    pub(super) fn batch_shape(&self, config: &Config) -> Vec<usize> {
        let (batch, parts, context) = (config.train.batch, config.train.parts, self.context);
        if parts > 1 { vec![parts, batch / parts, context] } else { vec![batch, context] }
    }

    pub(super) fn weights(&self) -> Vec<Weight> {
        self.learns.iter().map(|e| e.weight.clone()).collect()
    }

    /// The step as a program. Parameters: inputs and targets `i64[batch, context]`, or `[parts, batch / parts, context]`; the state;
    /// frozen weights. Results: the new state, the loss, the norm, the rate.
    pub(super) fn step(&self, config: &Config, recipe: &Recipe) -> Result<Module, Diagnostic> {
        self.step_of(&self.model, config, recipe)
    }

    /// Operations of products in a step, but for the optimiser's, and for what is computed again to save memory.
    pub(super) fn flops(&self, config: &Config, recipe: &Recipe) -> Result<f64, Diagnostic> {
        let plain = DecoderConfig { checkpoint: false, ..self.model.clone() };
        model_flops(&self.step_of(&plain, config, recipe)?)
    }

    fn step_of(&self, model: &DecoderConfig, config: &Config, recipe: &Recipe) -> Result<Module, Diagnostic> {
        let g = Graph::new("main");
        let shape = self.batch_shape(config);
        let (x, y) = (g.input("inputs", DType::I64, shape.clone()), g.input("targets", DType::I64, shape));
        let weights = self.weights();
        let state = State::declare(&g, recipe, &weights);
        let frozen: Vec<Tensor> =
            self.frozen.iter().map(|(e, _)| g.weight(&e.weight.name, DType::F32, &e.weight.ty.shape)).collect();
        // Dropout of a step is that of its number, and so again where a run goes on.
        let [_, of_dropout] = g.key(config.seed).split();
        let key = of_dropout.fold_in(&state.step);
        let parts: Vec<Tensor> = (0..config.train.parts as u32).map(|i| key.numbered(i).words().clone()).collect();
        let keys = stack(&parts.iter().collect::<Vec<_>>(), 0).filter(|_| parts.len() > 1);
        let key = keys.map_or(key.clone(), |keys| key.rebuilt(vec![keys]));
        let roles = self.roles();
        let dropout = config.train.dropout;
        let loss = |weights: &[Tensor], frozen: &[Tensor], (x, y, key): &(Tensor, Tensor, Key)| {
            let all: Weights = roles.iter().cloned().zip(weights.iter().chain(frozen).cloned()).collect();
            let logits = model.logits(x, &all, Some((dropout, key)).filter(|(p, _)| *p > 0.0));
            g.scope(LOSS, || logits.cross_entropy(y))
        };
        train_step(&g, recipe, &weights, &state, &frozen, &(x, y, key), loss).finish(&g)
    }

    /// The mean loss of `shape`, sequences and their tokens, as a program, without dropout. Parameters: inputs, targets, weights that
    /// learn, frozen ones.
    pub(super) fn loss(&self, shape: [usize; 2], policy: Option<&Policy>) -> Result<Module, Diagnostic> {
        let g = Graph::new("main");
        let (x, y) = (g.input("inputs", DType::I64, shape), g.input("targets", DType::I64, shape));
        let learns = self.learns.iter().map(|e| g.input(&e.weight.name, DType::F32, &e.weight.ty.shape));
        let learns: Vec<Tensor> = learns.collect();
        let frozen = self.frozen.iter().map(|(e, _)| g.weight(&e.weight.name, DType::F32, &e.weight.ty.shape));
        let frozen: Vec<Tensor> = frozen.collect();
        let roles = self.roles();
        let loss = |weights: &Vec<Tensor>| {
            let all = roles.iter().cloned().zip(weights.iter().chain(&frozen).cloned()).collect();
            self.model.logits(&x, &all, None).cross_entropy(&y)
        };
        g.finish(&[&policy.map_or_else(|| loss(&learns), |policy| mixed(policy, loss)(&learns))])
    }

    /// Roles of what learns, then of what stays.
    fn roles(&self) -> Vec<String> {
        self.learns.iter().chain(self.frozen.iter().map(|(e, _)| e)).map(|e| e.role.clone()).collect()
    }

    /// The weights of the model with `values` for what learns: with their products where those are adapters.
    ///
    /// Errors: those of the compiler.
    pub(super) fn merged(&self, values: &[Array], options: &Options) -> Result<Vec<(String, Array)>, Diagnostic> {
        let named = self.learns.iter().map(|e| e.weight.name.clone()).zip(values.iter().cloned());
        let Some(lora) = self.model.lora else { return Ok(named.collect()) };
        let adapters: BTreeMap<String, Array> = named.collect();
        let mut out = Vec::new();
        for (entry, base) in &self.frozen {
            let name = &entry.weight.name;
            let pair = (adapters.get(&format!("{name}.lora_a")), adapters.get(&format!("{name}.lora_b")));
            let (Some(a), Some(b)) = pair else {
                out.push((name.clone(), base.clone()));
                continue;
            };
            let g = Graph::new("main");
            let of = |name: &str, array: &Array| g.input(name, DType::F32, array.shape().to_vec());
            let product = of("a", a).matmul(&of("b", b)) * lora.scale();
            let product = if self.model.inputs_first() { product } else { product.transpose(0, 1) };
            let module = g.finish(&[&(of("base", base) + product)])?;
            let results = compile(&module, options)?.run(&[a.clone(), b.clone(), base.clone()], &Bindings::new())?;
            out.extend(results.into_iter().map(|array| (name.clone(), array)));
        }
        Ok(out)
    }

    /// Writes `config.json`, `model.safetensors` and the files of the tokenizer into `folder`, for `generate` and for other runs.
    ///
    /// Errors: `file`; those of [`Learner::merged`].
    pub(super) fn export(
        &self,
        folder: &Path,
        values: &[Array],
        tokenizer: Option<&TokenizerFiles>,
        options: &Options,
    ) -> Result<(), Diagnostic> {
        let weights = self.merged(values, options)?;
        let tensors: Vec<(&str, &Array)> = weights.iter().map(|(name, array)| (name.as_str(), array)).collect();
        safetensors::write(folder.join(WEIGHTS), &tensors, &BTreeMap::from([("format".into(), "pt".into())]))?;
        let config = self.model.to_json(tokenizer.map_or(&[], |files| &files.ends));
        write_whole(&folder.join("config.json"), |out| out.write_all(config.as_bytes()))?;
        tokenizer.map_or(Ok(()), |files| files.write(folder))
    }
}

/// The scope of the loss behind the logits.
const LOSS: &str = "loss";

/// The file of the weights in the folder of a model.
const WEIGHTS: &str = "model.safetensors";

/// First values, by a program of their own. Each weight has a key of its number.
fn draw(entries: &[Entry], seed: u64, which: usize, options: &Options) -> Result<Vec<Array>, Diagnostic> {
    let g = Graph::new("main");
    let keys: [Key; 2] = g.key(seed).split();
    let mut first = Vec::with_capacity(entries.len());
    for (i, e) in entries.iter().enumerate() {
        let (key, shape) = (keys[which].numbered(i as u32), &e.weight.ty.shape);
        first.push(match e.start {
            Start::Ones => g.full(DType::F32, shape, 1.0),
            Start::Zeros => g.full(DType::F32, shape, 0.0),
            Start::Normal(deviation) => Initial::Normal { deviation }.draw(&key, DType::F32, shape),
            Start::Uniform(limit) => Initial::Uniform { limit }.draw(&key, DType::F32, shape),
        });
    }
    let module = g.finish(&first.iter().collect::<Vec<_>>())?;
    // One level for all, so that first weights do not depend on the one that the steps are compiled with.
    compile(&module, &Options { opt_level: 1, ..options.clone() })?.run(&[], &Bindings::new())
}

/// The weights of `model` in a safetensors file, in f32 and in the order of its entries. Names may begin with `transformer.`.
///
/// Errors: those of the file; `weight-mismatch`.
pub(crate) fn read_weights(path: &Path, model: &DecoderConfig) -> Result<Vec<Array>, Diagnostic> {
    let file = Safetensors::open(path)?;
    let prefixed = |name: &str| format!("transformer.{name}");
    let one = |e: &Entry| {
        let (name, ty) = (&e.weight.name, &e.weight.ty);
        let longer = prefixed(name);
        let array = file.tensor(if file.names().any(|n| n == longer) { &longer } else { name })?;
        let found = Type::new(array.dtype(), array.shape().iter().copied());
        let values = array.to_f32().filter(|_| found.shape == ty.shape && found.dtype.is_float());
        let values = values.ok_or_else(|| {
            let message = format!("weight `{name}`: expected {ty}, found {found}");
            Diagnostic::new("weight-mismatch", message).at(Place::Named(path.display().to_string().into()), "")
        })?;
        if array.dtype() == DType::F32 { Ok(array) } else { Array::from_f32(array.shape(), &values) }
    };
    model.entries().iter().map(one).collect()
}
