//! The tokenizer of a model in a folder: `tokenizer.json`, and the files beside it that say how texts end and conversations go.

use super::chat::{self, Chat};
use super::tokenizer::Tokenizer;
use super::{Gguf, in_file, read_text, shown, write_whole};
use std::path::Path;
use tilewright_ir::array::Bytes;
use tilewright_ir::diag::Diagnostic;

/// What the files say.
#[derive(Clone, Debug, Default)]
pub struct TokenizerFiles {
    /// The text of `tokenizer.json`.
    pub json: String,
    /// The template of conversations.
    pub chat: Chat,
    /// The tokens that end a text or a turn.
    pub ends: Vec<u32>,
}

impl TokenizerFiles {
    /// Those of a `tokenizer.json` and of what is beside it. A text ends at `eos_token_id` of `config.json` and
    /// `generation_config.json`, and at `eos_token` of `tokenizer_config.json`, where there are such files.
    ///
    /// Errors: `file`, `text`, `tokenizer`, `tokenizer-config`; `model-config` for an `eos_token_id` that is no token.
    pub fn open(path: &Path) -> Result<TokenizerFiles, Diagnostic> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let json = read_text(path)?;
        let mut files = TokenizerFiles { json, chat: Chat::open(folder)?, ends: Vec::new() };
        for name in ["config.json", "generation_config.json"] {
            let config = folder.join(name);
            if config.exists() {
                files.ends.extend(ends(&config)?);
            }
        }
        if let Some(end) = &files.chat.end {
            files.ends.extend(files.tokenizer(&path.display().to_string())?.token_id(end));
        }
        files.ends.sort_unstable();
        files.ends.dedup();
        Ok(files)
    }

    /// Those of a GGUF file. Errors: `gguf-metadata`, `tokenizer`.
    pub fn from_gguf(gguf: &Gguf) -> Result<TokenizerFiles, Diagnostic> {
        let tokenizer = Tokenizer::from_gguf(gguf)?;
        Ok(TokenizerFiles { json: tokenizer.to_json()?, chat: Chat::from_gguf(gguf)?, ends: tokenizer.ends().to_vec() })
    }

    /// The tokenizer; `file` names it in errors. Errors: `tokenizer`.
    pub fn tokenizer(&self, file: &str) -> Result<Tokenizer, Diagnostic> {
        let tokenizer = Tokenizer::from_json(file, &Bytes::new(self.json.clone().into_bytes()))?;
        Ok(tokenizer.ending(self.ends.clone()))
    }

    /// Writes `tokenizer.json` and, where there is something to say, `tokenizer_config.json` into `folder`; `ends` are for
    /// `config.json`. Errors: `file`.
    pub fn write(&self, folder: &Path) -> Result<(), Diagnostic> {
        let text = |name: &str, text: &str| write_whole(&folder.join(name), |out| out.write_all(text.as_bytes()));
        text("tokenizer.json", &self.json)?;
        let Chat { template, begin, end, .. } = &self.chat;
        let said = [template, begin, end].iter().any(|said| said.is_some());
        if said { text(chat::CONFIG, &self.chat.to_json()) } else { Ok(()) }
    }
}

/// `eos_token_id` of a configuration: none, a token, or several.
fn ends(path: &Path) -> Result<Vec<u32>, Diagnostic> {
    let file = path.display().to_string();
    let wrong = |message: String| in_file("model-config", message, &file);
    let config: serde_json::Value = serde_json::from_str(&read_text(path)?)
        .map_err(|e| wrong(format!("expected JSON: {}", shown(&e.to_string()))))?;
    let found = &config["eos_token_id"];
    let id = |value: &serde_json::Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids = match found {
        serde_json::Value::Null => Some(Vec::new()),
        serde_json::Value::Array(several) => several.iter().map(id).collect(),
        one => id(one).map(|id| vec![id]),
    };
    ids.ok_or_else(|| wrong(format!("eos_token_id: expected a token or several, found {}", shown(&found.to_string()))))
}
