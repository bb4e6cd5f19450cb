//! How a conversation is written for a model: its chat template, and the tokens that begin and end a text.
//!
//! A GGUF file carries its template as Jinja source (`tokenizer.chat_template`), a folder of Hugging Face in
//! `chat_template.jinja` or in `tokenizer_config.json`. It is written for Python; `minijinja` renders it with Python's string
//! methods added. The template is hostile text: its work and memory are bounded by fuel, and it has no access to files or the
//! clock.

use super::{Gguf, in_file, read_text, shown};
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, context};
use serde_json::json;
use std::path::Path;
use tilewright_ir::diag::Diagnostic;

const KEY: &str = "tokenizer.chat_template";

/// Instructions, and units of 64 bytes of data, that one rendering may use.
const FUEL: u64 = 2_000_000;

/// What a model knows of conversations, beside its tokenizer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chat {
    /// Where it is from, for errors.
    file: String,
    /// Jinja source; none of base models, which continue text.
    pub template: Option<String>,
    /// Spelling of the token that begins a text.
    pub begin: Option<String>,
    /// Spelling of the token that ends a text or a turn.
    pub end: Option<String>,
}

impl Chat {
    /// That of a GGUF file. Errors: `gguf-metadata` for a template that is no string.
    pub fn from_gguf(gguf: &Gguf) -> Result<Chat, Diagnostic> {
        let template = gguf.metadata.contains_key(KEY).then(|| gguf.str(KEY).map(str::to_string)).transpose()?;
        let token = |key: &str| {
            let id = gguf.usize(key).ok()?;
            gguf.array("tokenizer.ggml.tokens").ok()?.get(id)?.as_str().map(str::to_string)
        };
        let [begin, end] = ["tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"].map(token);
        Ok(Chat { file: gguf.file.clone(), template, begin, end })
    }

    /// That of a folder of Hugging Face: `chat_template.jinja` and `tokenizer_config.json`, where there are such files.
    ///
    /// Errors: `file`, `text`; `tokenizer-config` for other than JSON, and keys of other types.
    pub fn open(folder: &Path) -> Result<Chat, Diagnostic> {
        let path = folder.join(CONFIG);
        let file = path.display().to_string();
        let mut chat = match path.exists() {
            true => Chat::from_json(&file, &read_text(&path)?)?,
            false => Chat { file, ..Chat::default() },
        };
        let own = folder.join("chat_template.jinja");
        if own.exists() {
            chat.template = Some(read_text(&own)?);
            chat.file = own.display().to_string();
        }
        Ok(chat)
    }

    /// From the text of a `tokenizer_config.json`; `file` names it in errors. Errors: `tokenizer-config`.
    pub fn from_json(file: &str, text: &str) -> Result<Chat, Diagnostic> {
        let wrong = |message: String| in_file("tokenizer-config", message, file);
        let config: serde_json::Value =
            serde_json::from_str(text).map_err(|e| wrong(format!("expected JSON: {}", shown(&e.to_string()))))?;
        // A token is its spelling, or an object that has it.
        let token = |key: &str| match &config[key] {
            serde_json::Value::Null => Ok(None),
            value => match value.as_str().or_else(|| value["content"].as_str()) {
                Some(token) => Ok(Some(token.to_string())),
                None => Err(wrong(format!("{key}: expected a token, found {}", shown(&value.to_string())))),
            },
        };
        // A template is its source, or one of several by name.
        let template = match &config["chat_template"] {
            serde_json::Value::Null => None,
            value => {
                let named = value.as_array().into_iter().flatten().find(|t| t["name"] == "default");
                let source = value.as_str().or_else(|| named.and_then(|t| t["template"].as_str()));
                Some(
                    source.ok_or_else(|| wrong("chat_template: expected Jinja source, found none".into()))?.to_string(),
                )
            }
        };
        Ok(Chat { file: file.into(), template, begin: token("bos_token")?, end: token("eos_token")? })
    }

    /// The text of a `tokenizer_config.json` that says the same.
    pub fn to_json(&self) -> String {
        let all = [("bos_token", &self.begin), ("eos_token", &self.end), ("chat_template", &self.template)];
        let said = all.into_iter().filter_map(|(key, value)| Some((key.to_string(), json!(value.as_ref()?))));
        let class = ("tokenizer_class".to_string(), json!("PreTrainedTokenizerFast"));
        let value: serde_json::Map<String, serde_json::Value> = said.chain([class]).collect();
        format!("{:#}\n", serde_json::Value::from(value))
    }

    /// The prompt for `messages`, each a `(role, content)` with the roles `system`, `user`, `assistant`; if
    /// `add_generation_prompt`, it ends where the assistant's answer starts.
    ///
    /// Without a template it is plain: the contents, without roles, one after the other with an empty line between. That
    /// suits base models, which continue text.
    ///
    /// Errors: `chat-template` if the template cannot be parsed, refuses the messages, or uses too much work.
    pub fn prompt(&self, messages: &[(&str, &str)], add_generation_prompt: bool) -> Result<String, Diagnostic> {
        let Some(template) = &self.template else {
            let contents: Vec<&str> = messages.iter().map(|(_, content)| *content).collect();
            return Ok(contents.join("\n\n"));
        };
        let messages: Vec<_> = messages.iter().map(|&(role, content)| context! { role, content }).collect();
        let token = |token: &Option<String>| token.clone().unwrap_or_default();
        let (bos_token, eos_token) = (token(&self.begin), token(&self.end));
        let values = context! { messages, add_generation_prompt, bos_token, eos_token };
        let rendered = environment().and_then(|e| e.render_named_str("chat_template", template, values));
        rendered.map_err(|e| {
            let line = e.line().map_or(String::new(), |l| format!(" in line {l}"));
            let message = format!("the chat template fails{line}: {}", shown(&reason(&e)).trim_matches('`'));
            in_file("chat-template", message, &self.file)
        })
    }
}

/// The file of a folder of Hugging Face that has these.
pub const CONFIG: &str = "tokenizer_config.json";

/// Jinja as the templates expect it: Python's methods, `raise_exception`, blocks that swallow their line.
fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    let syntax = environment.syntax().to_builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    Ok(environment)
}

/// What an error says, with the errors below it.
fn reason(error: &Error) -> String {
    let mut out = error.detail().map_or_else(|| error.kind().to_string(), str::to_string);
    let mut below = std::error::Error::source(error);
    while let Some(e) = below {
        out += &format!(": {e}");
        below = e.source();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::gguf::Value as Meta;
    use tilewright_ir::array::Bytes;

    fn prompt(gguf: &Gguf, messages: &[(&str, &str)], open: bool) -> Result<String, Diagnostic> {
        Chat::from_gguf(gguf)?.prompt(messages, open)
    }

    fn with_template(template: Option<&str>) -> Gguf {
        let empty = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        let mut gguf = Gguf::from_bytes("chat.gguf", Bytes::new(empty)).unwrap();
        if let Some(template) = template {
            gguf.metadata.insert(KEY.into(), Meta::String(template.into()));
        }
        let tokens = ["<s>", "</s>"].map(|t| Meta::String(t.into())).to_vec();
        gguf.metadata.insert("tokenizer.ggml.tokens".into(), Meta::Array(tokens));
        gguf.metadata.insert("tokenizer.ggml.bos_token_id".into(), Meta::U32(0));
        gguf.metadata.insert("tokenizer.ggml.eos_token_id".into(), Meta::U32(1));
        gguf
    }

    /// The shape of Mistral's template: alternation is checked, strings are stripped, tokens are variables.
    const STRICT: &str = "{{ bos_token }}{% for m in messages %}
        {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}
            {{- raise_exception('roles must alternate') }}
        {%- elif m.role == 'user' %}[INST] {{ m['content'].strip() }} [/INST]
        {%- else %} {{ m['content'].upper() }}{{ eos_token }}{% endif %}{% endfor %}";

    #[test]
    fn a_template_sees_messages_tokens_and_python_methods() {
        let gguf = with_template(Some(STRICT));
        let text = prompt(&gguf, &[("user", " a < b "), ("assistant", "yes")], true).unwrap();
        assert_eq!(text, "<s>[INST] a < b [/INST] YES</s>");
        let error = prompt(&gguf, &[("assistant", "x")], true).unwrap_err();
        assert!(error.code == "chat-template" && error.message.contains("roles must alternate"), "{error}");
    }

    #[test]
    fn without_a_template_contents_follow_each_other() {
        assert_eq!(prompt(&with_template(None), &[("system", "a"), ("user", "b")], true).unwrap(), "a\n\nb");
    }

    #[test]
    fn a_folder_says_the_same_as_the_file() {
        let chat = Chat::from_gguf(&with_template(Some(STRICT))).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(CONFIG), chat.to_json()).unwrap();
        let read = Chat::open(folder.path()).unwrap();
        assert_eq!((&read.template, &read.begin, &read.end), (&chat.template, &chat.begin, &chat.end));
        std::fs::write(folder.path().join("chat_template.jinja"), "{{ eos_token }}").unwrap();
        assert_eq!(Chat::open(folder.path()).unwrap().prompt(&[], true).unwrap(), "</s>");
        assert_eq!(Chat::open(&folder.path().join("none")).unwrap().template, None);
        let objects = r#"{"eos_token": {"content": "<e>"}, "chat_template": [{"name": "default", "template": "x"}]}"#;
        let read = Chat::from_json("f", objects).unwrap();
        assert_eq!((read.template.as_deref(), read.begin, read.end.as_deref()), (Some("x"), None, Some("<e>")));
        for wrong in ["", "{", r#"{"eos_token": 3}"#, r#"{"chat_template": [1]}"#, r#"{"chat_template": {}}"#] {
            let error = Chat::from_json("some/file.json", wrong).unwrap_err();
            assert!(error.code == "tokenizer-config" && error.to_string().contains("file.json"), "{error}");
        }
    }

    #[test]
    fn hostile_templates_end_with_an_error() {
        let doubling = "{% set n = namespace(s='x' * 1000) %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}";
        let nested = format!("{}1{}", "{{ (".to_string() + &"(".repeat(100_000), ")".repeat(100_001) + " }}");
        let macros = "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}";
        let loops = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}x{% endfor %}{% endfor %}{% endfor %}";
        for template in [
            doubling,
            nested.as_str(),
            macros,
            loops,
            "{% if",
            "{{ 1 // 0 }}",
            "{% include '/etc/passwd' %}",
            "{{ nothing.at.all }}",
        ] {
            let error = prompt(&with_template(Some(template)), &[("user", "x")], true).unwrap_err();
            assert_eq!(error.code, "chat-template", "{error}");
            assert!(error.to_string().contains("chat.gguf"), "{error}");
        }
    }

    /// The expected text is the third prompt of the reference data.
    #[test]
    fn the_model_has_the_expected_prompt() {
        let Some(gguf) = crate::formats::test_model() else { return };
        let question = "Why is the sky blue? Answer in two sentences.";
        let expected = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
                        <|im_start|>user\nWhy is the sky blue? Answer in two sentences.<|im_end|>\n<|im_start|>assistant\n";
        assert_eq!(prompt(&gguf, &[("user", question)], true).unwrap(), expected);
    }
}
