//! Chat templates: the text that a model was trained to see for a conversation.
//!
//! A GGUF file carries its template as Jinja source (`tokenizer.chat_template`), written for Python; `minijinja` renders it
//! with Python's string methods added. The template is hostile text: its work and memory are bounded by fuel, and it has
//! no access to files or the clock.

use super::{Gguf, in_file, shown};
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, context};
use tilewright_ir::diag::{Diagnostic, Place};

const KEY: &str = "tokenizer.chat_template";

/// Instructions, and units of 64 bytes of data, that one rendering may use.
const FUEL: u64 = 2_000_000;

/// The prompt for `messages`, each a `(role, content)` with the roles `system`, `user`, `assistant`; if
/// `add_generation_prompt`, it ends where the assistant's answer starts.
///
/// A file without a template gets a plain prompt: the contents, without roles, one after the other with an empty line
/// between. That suits base models, which continue text.
///
/// Errors: `chat-template` if the template cannot be parsed, refuses the messages, or uses too much work;
/// `gguf-metadata` if it is not a string.
pub fn chat_prompt(gguf: &Gguf, messages: &[(&str, &str)], add_generation_prompt: bool) -> Result<String, Diagnostic> {
    if !gguf.metadata.contains_key(KEY) {
        let contents: Vec<&str> = messages.iter().map(|(_, content)| *content).collect();
        return Ok(contents.join("\n\n"));
    }
    let template = gguf.str(KEY)?;
    let messages: Vec<_> = messages.iter().map(|&(role, content)| context! { role, content }).collect();
    let values = context! {
        messages,
        add_generation_prompt,
        bos_token => token(gguf, "tokenizer.ggml.bos_token_id"),
        eos_token => token(gguf, "tokenizer.ggml.eos_token_id"),
    };
    let rendered = environment().and_then(|e| e.render_named_str("chat_template", template, values));
    rendered.map_err(|e| {
        let line = e.line().map_or(String::new(), |l| format!(" in line {l}"));
        let message = format!("the chat template fails{line}: {}", shown(&reason(&e)).trim_matches('`'));
        in_file("chat-template", message, &gguf.file).at(Place::Named(format!("`{KEY}`").into()), "the metadata key")
    })
}

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

/// Spelling of the token whose id is under `key`; empty if there is none.
fn token(gguf: &Gguf, key: &str) -> String {
    let tokens = gguf.array("tokenizer.ggml.tokens").unwrap_or_default();
    let id = gguf.usize(key).ok();
    id.and_then(|id| tokens.get(id)?.as_str()).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::gguf::Value as Meta;
    use tilewright_ir::array::Bytes;

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
        let text = chat_prompt(&gguf, &[("user", " a < b "), ("assistant", "yes")], true).unwrap();
        assert_eq!(text, "<s>[INST] a < b [/INST] YES</s>");
        let error = chat_prompt(&gguf, &[("assistant", "x")], true).unwrap_err();
        assert!(error.code == "chat-template" && error.message.contains("roles must alternate"), "{error}");
    }

    #[test]
    fn without_a_template_contents_follow_each_other() {
        assert_eq!(chat_prompt(&with_template(None), &[("system", "a"), ("user", "b")], true).unwrap(), "a\n\nb");
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
            let error = chat_prompt(&with_template(Some(template)), &[("user", "x")], true).unwrap_err();
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
        assert_eq!(chat_prompt(&gguf, &[("user", question)], true).unwrap(), expected);
    }
}
