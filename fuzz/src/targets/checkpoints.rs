//! GGUF and safetensors files: everything that an opened file offers is read.

use super::{Outcome, Target, accepted, refused};
use crate::files;
use crate::random::Random;
use crate::targets::tokenizer::use_tokenizer;
use std::collections::BTreeMap;
use tilewright::formats::dequantise::dequantised_values;
use tilewright::formats::tokenizer::Tokenizer;
use tilewright::formats::{Gguf, Safetensors, safetensors};
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::diag::Diagnostic;

/// GGUF files, and the tokenizers in them.
pub struct GgufFiles;

/// Values of a tensor, or its error.
fn read(tensor: Result<Array, Diagnostic>) -> Result<String, String> {
    match tensor {
        Ok(array) => {
            let values = dequantised_values(&array).map_or(0, |v| v.len()).max(array.to_f64().map_or(0, |v| v.len()));
            if values != array.len() {
                return Err(format!("{values} values of {} elements", array.len()));
            }
            Ok(array.dtype().to_string())
        }
        Err(error) => Ok(refused(&error)?.signature),
    }
}

impl Target for GgufFiles {
    fn name(&self) -> &'static str {
        "gguf"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let plain = files::gguf_bytes(2, &[(b"a", 6, vec![0, 0, 0x80, 0x3f])], &[("w", &[2, 2], 1, 0)], 8);
        vec![files::good_gguf(), plain, files::gguf_bytes(3, &[], &[], 0)]
    }

    fn text(&self) -> bool {
        false
    }

    fn run(&self, input: &[u8]) -> Result<Outcome, String> {
        let file = match Gguf::from_bytes("fuzz.gguf", Bytes::new(input.to_vec())) {
            Ok(file) => file,
            Err(error) => return refused(&error),
        };
        let mut signature = format!("{} tensors, {} keys", file.names().count().min(4), file.metadata.len().min(6));
        let names: Vec<String> = file.names().map(str::to_string).collect();
        for name in names {
            file.shape(&name).map_err(|d| d.to_string())?;
            signature += &read(file.tensor(&name))?;
        }
        for key in file.metadata.keys() {
            for error in [file.strings(key).err(), file.u64s(key).err()].into_iter().flatten() {
                refused(&error)?;
            }
        }
        match Tokenizer::from_gguf(&file) {
            Ok(tokenizer) => signature += &use_tokenizer(&tokenizer)?,
            Err(error) => signature += &refused(&error)?.signature,
        }
        Ok(accepted(signature))
    }
}

/// Safetensors files.
pub struct SafetensorsFiles;

impl Target for SafetensorsFiles {
    fn name(&self) -> &'static str {
        "safetensors"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let header = br#"{"a":{"dtype":"I64","shape":[],"data_offsets":[0,8]},"b\u00e9":{"dtype":"F8_E4M3","shape":[2,1,2],"data_offsets":[8,12]}}   "#;
        vec![files::good_safetensors(), files::safetensors_bytes(header, 12), files::safetensors_bytes(b"{}", 0)]
    }

    fn words(&self) -> Vec<String> {
        ["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "F8_E5M2"]
            .map(String::from)
            .to_vec()
    }

    /// Mostly, the length says where the header ends: behind the last brace.
    fn repair(&self, input: &mut Vec<u8>, random: &mut Random) {
        if input.len() > 8 && random.below(8) != 0 {
            let end = input.iter().rposition(|b| *b == b'}').map_or(input.len(), |at| at + 1).max(8);
            input[..8].copy_from_slice(&((end - 8) as u64).to_le_bytes());
        }
    }

    fn run(&self, input: &[u8]) -> Result<Outcome, String> {
        let file = match Safetensors::from_bytes("fuzz.safetensors", Bytes::new(input.to_vec())) {
            Ok(file) => file,
            Err(error) => return refused(&error),
        };
        let mut signature = format!("{} keys", file.metadata.len().min(3));
        let mut arrays: BTreeMap<&str, Array> = BTreeMap::new();
        for name in file.names() {
            let tensor = file.tensor(name);
            if let Ok(array) = &tensor {
                arrays.insert(name, array.clone());
            }
            signature += &read(tensor)?;
        }
        let tensors: Vec<(&str, &Array)> = arrays.iter().map(|(name, array)| (*name, array)).collect();
        let written = safetensors::to_bytes(&tensors, &file.metadata).map_err(|d| d.to_string())?;
        let again = Safetensors::from_bytes("written", Bytes::new(written)).map_err(|d| format!("written: {d}"))?;
        let same = again.metadata == file.metadata
            && again.names().eq(arrays.keys().copied())
            && arrays.iter().all(|(name, array)| again.tensor(name).is_ok_and(|a| a == *array));
        if same { Ok(accepted(signature)) } else { Err("another file comes back from what is written".into()) }
    }
}
