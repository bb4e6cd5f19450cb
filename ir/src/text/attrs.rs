//! Attributes in text, by the type that the op table gives them.

use super::lexer::{Token, TokenKind};
use super::literal;
use super::names;
use super::parse::Parser;
use crate::array::{Array, Bytes, element_count};
use crate::diag::Diagnostic;
use crate::op::{Attr, Axes, DotDims, Literal, ReduceKind, ScalarKind, ScalarOp};
use crate::types::Dim;

impl<'t> Parser<'t> {
    /// The attributes of a row, `name=value` in any order. `op` is the op's name, for messages.
    pub(super) fn attrs(
        &mut self,
        op: &Token<'t>,
        row: &[(&'static str, &'static str)],
    ) -> Result<Vec<Attr>, Diagnostic> {
        let mut slots: Vec<Option<Attr>> = vec![None; row.len()];
        // Those of a dot are two names for one slot.
        let mut pairs = [false; 2];
        if let Some(i) = row.iter().position(|(_, ty)| *ty == "Literal") {
            slots[i] = Some(Attr::Literal(self.literal()?));
        }
        while self.token.kind == TokenKind::Ident && self.token.text != "return" {
            let at = self.advance();
            let dot = at.text == "batch" || at.text == "contract";
            let slot = row.iter().position(|(n, ty)| if *ty == "DotDims" { dot } else { *n == at.text });
            let contract = usize::from(at.text == "contract");
            let first = |i: &usize| if row[*i].1 == "DotDims" { !pairs[contract] } else { slots[*i].is_none() };
            let Some(i) = slot.filter(first) else {
                return Err(self.no_attr(op, &at, row, slot.is_some()));
            };
            self.expect("=")?;
            if row[i].1 == "DotDims" {
                pairs[contract] = true;
                let pair = self.axes_pair()?;
                let Attr::DotDims(d) = slots[i].get_or_insert(Attr::DotDims(DotDims::default())) else {
                    return Err(Diagnostic::bug("the axes of a dot have another type"));
                };
                *(if at.text == "batch" { &mut d.batch } else { &mut d.contract }) = pair;
            } else {
                slots[i] = Some(self.attr(row[i].1)?);
            }
        }
        let whole = slots.into_iter().zip(row).map(|(slot, (name, ty))| {
            let absent = || (*ty == "DotDims").then(|| Attr::DotDims(DotDims::default()));
            slot.or_else(absent).ok_or_else(|| {
                self.error(op, "missing-attribute", format!("{} needs the attribute `{name}`", op.shown()), "")
            })
        });
        whole.collect()
    }

    fn no_attr(&self, op: &Token, at: &Token, row: &[(&str, &str)], twice: bool) -> Diagnostic {
        let message = match twice {
            true => format!("the attribute {} stands twice", at.shown()),
            false => format!("{} has no attribute {}", op.shown(), at.shown()),
        };
        let known: Vec<&str> =
            row.iter().map(|(n, ty)| if *ty == "DotDims" { "batch, contract" } else { *n }).collect();
        let found = self.error(at, "bad-attribute", message, "");
        if known.is_empty() { found } else { found.note(format!("its attributes are {}", known.join(", "))) }
    }

    fn attr(&mut self, ty: &str) -> Result<Attr, Diagnostic> {
        Ok(match ty {
            "Axis" => Attr::Axis(self.axis()?),
            "Axes" => Attr::Axes(self.axes()?),
            "Dim" => Attr::Dim(self.dim()?),
            "Dims" => {
                self.expect("[")?;
                Attr::Dims(self.items("]", |p| p.dim())?)
            }
            "Strides" => {
                self.expect("[")?;
                Attr::Strides(self.items("]", |p| p.signed("a stride"))?)
            }
            "DType" => Attr::DType(self.dtype()?),
            "Name" => {
                self.expect("@")?;
                Attr::Name(self.name("the name of a function")?.into())
            }
            "PadAmounts" => {
                self.expect("[")?;
                Attr::PadAmounts(self.items("]", |p| p.pair())?)
            }
            "ReduceKind" => {
                let at = self.ident("a kind of reduction")?;
                let kind = ReduceKind::ALL.iter().copied().find(|k| k.name() == at.text);
                Attr::ReduceKind(kind.ok_or_else(|| self.error(&at, "bad-attribute", "unknown reduction", ""))?)
            }
            "ScalarOp" => {
                let at = self.ident("a scalar op")?;
                let op = ScalarKind::by_name(at.text).and_then(|k| ScalarOp::from_parts(k, &[]));
                Attr::ScalarOp(op.ok_or_else(|| self.error(&at, "bad-attribute", "unknown scalar op", ""))?)
            }
            other => return Err(Diagnostic::bug(format!("attributes of type {other} have no text"))),
        })
    }

    fn pair(&mut self) -> Result<(Dim, Dim), Diagnostic> {
        self.expect("(")?;
        let low = self.dim()?;
        self.expect(",")?;
        let high = self.dim()?;
        self.expect(")")?;
        Ok((low, high))
    }

    fn axis(&mut self) -> Result<usize, Diagnostic> {
        let at = self.token;
        let n = self.integer("an axis or a count")?;
        usize::try_from(n).map_err(|_| self.error(&at, "bad-attribute", "this number is too large", ""))
    }

    fn axes(&mut self) -> Result<Axes, Diagnostic> {
        self.expect("[")?;
        self.items("]", |p| p.axis())
    }

    fn axes_pair(&mut self) -> Result<(Axes, Axes), Diagnostic> {
        let left = self.axes()?;
        let at = self.ident("`x`")?;
        if at.text != "x" {
            return Err(self.error(&at, "syntax", format!("expected `x`, found {}", at.shown()), ""));
        }
        Ok((left, self.axes()?))
    }

    /// `type = elements`. Memory grows with the text, never with the sizes that it claims.
    fn literal(&mut self) -> Result<Literal, Diagnostic> {
        let at = self.token;
        let ty = self.ty()?;
        let sizes = ty.shape.iter().map(|d| d.as_const().and_then(|n| usize::try_from(n).ok()));
        let shape: Option<Vec<usize>> = sizes.collect();
        let known = shape.and_then(|s| Some((element_count(&s)?, s)));
        let Some((count, shape)) = known else {
            let message = format!("a constant needs known sizes that fit in memory, found {ty}");
            return Err(self.error(&at, "bad-attribute", message, ""));
        };
        self.expect("=")?;
        let mut bytes = Vec::new();
        let first = self.token;
        if ty.dtype.is_block() {
            let hex = names::unquoted(self.quoted("the bytes as hex digits in quotes")?.text);
            bytes = hex
                .as_deref()
                .and_then(hex_bytes)
                .ok_or_else(|| self.error(&first, "syntax", "expected an even number of hex digits in quotes", ""))?;
        } else if shape.is_empty() {
            self.element(&mut bytes, ty.dtype)?;
        } else {
            self.expect("[")?;
            let found = self.items("]", |p| p.element(&mut bytes, ty.dtype))?.len();
            if found != count {
                let message = format!("{ty} needs {count} elements, found {found}");
                return Err(self.error(&first, "array-size", message, ""));
            }
        }
        let array = Array::new(ty.dtype, &shape, Bytes::new(bytes));
        array.map(Literal).map_err(|d| self.error(&first, d.code, d.message, ""))
    }

    fn element(&mut self, out: &mut Vec<u8>, dtype: crate::types::DType) -> Result<(), Diagnostic> {
        let negative = self.eat("-");
        let at = self.token;
        if !matches!(at.kind, TokenKind::Number | TokenKind::Ident) {
            return Err(self.unexpected("an element"));
        }
        literal::read(out, dtype, negative, at.text).ok_or_else(|| {
            let sign = if negative { "-" } else { "" };
            let message = format!("expected an element of {dtype}, found {sign}{}", at.shown().trim_matches('`'));
            self.error(&at, "bad-element", message, "")
        })?;
        self.advance();
        Ok(())
    }
}

fn hex_bytes(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[a, b]| Some(digit(*a)? << 4 | digit(*b)?)).collect()
}
