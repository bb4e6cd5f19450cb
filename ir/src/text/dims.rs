//! Dims and types in text: sums of products of numbers, symbols, `floordiv(dim, n)`, `mod(dim, n)`, parentheses.

use super::lexer::{Token, TokenKind};
use super::parse::Parser;
use crate::diag::Diagnostic;
use crate::types::{DType, Dim, Type};

/// Deepest nesting of parentheses.
const MAX_DEPTH: usize = 64;
/// Most axes of a type.
const MAX_RANK: usize = 64;
/// Most numbers and symbols of one dim.
const MAX_FACTORS: usize = 1024;

impl<'t> Parser<'t> {
    fn overflow(&self, at: &Token) -> Diagnostic {
        self.error(at, "dim-overflow", "this size does not fit in 64 bits, or has too many terms", "")
    }

    /// A dim. Errors: `syntax`, `dim-overflow`, `unknown-symbol`.
    pub(super) fn dim(&mut self) -> Result<Dim, Diagnostic> {
        self.factors = 0;
        self.dim_sum(0)
    }

    fn dim_sum(&mut self, depth: usize) -> Result<Dim, Diagnostic> {
        if depth > MAX_DEPTH {
            let message = format!("expected at most {MAX_DEPTH} nested parentheses");
            return Err(self.error(&self.token, "nesting", message, ""));
        }
        let negative = self.eat("-");
        let mut sum = self.dim_product(negative, depth)?;
        loop {
            let at = self.token;
            let negative = if self.eat("+") {
                false
            } else if self.eat("-") {
                true
            } else {
                return Ok(sum);
            };
            let term = self.dim_product(negative, depth)?;
            sum = sum.checked_add(&term).ok_or_else(|| self.overflow(&at))?;
        }
    }

    fn dim_product(&mut self, negative: bool, depth: usize) -> Result<Dim, Diagnostic> {
        let at = self.token;
        let mut product = if at.kind == TokenKind::Number {
            // The sign goes with the number, so that the smallest i64 can be written.
            if !at.text.bytes().all(|b| b.is_ascii_digit()) {
                return Err(self.unexpected("an integer"));
            }
            let magnitude = at.text.parse::<i128>().map_err(|_| self.overflow(&at))?;
            self.advance();
            let signed = if negative { -magnitude } else { magnitude };
            Dim::constant(i64::try_from(signed).map_err(|_| self.overflow(&at))?)
        } else {
            let factor = self.dim_factor(depth)?;
            let sign = Dim::constant(if negative { -1 } else { 1 });
            factor.checked_mul(&sign).ok_or_else(|| self.overflow(&at))?
        };
        while self.eat("*") {
            let at = self.token;
            let factor = self.dim_factor(depth)?;
            product = product.checked_mul(&factor).ok_or_else(|| self.overflow(&at))?;
        }
        Ok(product)
    }

    fn dim_factor(&mut self, depth: usize) -> Result<Dim, Diagnostic> {
        let at = self.token;
        self.factors += 1;
        if self.factors > MAX_FACTORS {
            return Err(self.overflow(&at));
        }
        match at.kind {
            TokenKind::Number => self.integer("a size").map(Dim::constant),
            TokenKind::Mark if at.text == "(" => {
                self.advance();
                let inner = self.dim_sum(depth + 1)?;
                self.expect(")")?;
                Ok(inner)
            }
            TokenKind::Ident if at.text == "floordiv" || at.text == "mod" => {
                self.advance();
                self.expect("(")?;
                let inner = self.dim_sum(depth + 1)?;
                self.expect(",")?;
                let by = self.token;
                let divisor = self.integer("a divisor")?;
                if divisor < 1 {
                    return Err(self.error(&by, "bad-attribute", "expected a divisor of at least 1, found 0", ""));
                }
                self.expect(")")?;
                Ok(if at.text == "mod" { inner.modulo(divisor) } else { inner.floor_div(divisor) })
            }
            TokenKind::Ident => {
                self.advance();
                match &self.declared {
                    Some(known) if !known.contains(at.text) => return Err(self.undeclared(&at)),
                    Some(_) => {}
                    None => self.pending.push(at),
                }
                Ok(Dim::symbol(at.text))
            }
            TokenKind::Quoted | TokenKind::Mark | TokenKind::Stray | TokenKind::End => Err(self.unexpected("a size")),
        }
    }

    /// The error for a symbol that the function does not declare.
    pub(super) fn undeclared(&self, at: &Token) -> Diagnostic {
        let name = at.text;
        self.error(at, "unknown-symbol", format!("the size {} is not declared", at.shown()), "")
            .note(format!("declare it before the body: `where {name} in 1..=4096`"))
    }

    /// `dtype[dim, dim]`.
    pub(super) fn ty(&mut self) -> Result<Type, Diagnostic> {
        let dtype = self.dtype()?;
        let at = self.token;
        self.expect("[")?;
        let shape = self.items("]", |p| p.dim())?;
        if shape.len() > MAX_RANK {
            let found = shape.len();
            return Err(self.error(
                &at,
                "bad-attribute",
                format!("expected at most {MAX_RANK} axes, found {found}"),
                "",
            ));
        }
        Ok(Type { dtype, shape })
    }

    /// A dtype by name.
    pub(super) fn dtype(&mut self) -> Result<DType, Diagnostic> {
        let at = self.ident("a dtype")?;
        at.text.parse().map_err(|_| {
            let names: Vec<&str> = DType::ALL.iter().map(|d| d.name()).collect();
            self.error(&at, "unknown-dtype", format!("there is no dtype {}", at.shown()), "")
                .note(format!("dtypes are {}", names.join(" ")))
        })
    }

    /// One type, or several in parentheses.
    pub(super) fn type_list(&mut self) -> Result<Vec<Type>, Diagnostic> {
        if self.eat("(") { self.items(")", |p| p.ty()) } else { Ok(vec![self.ty()?]) }
    }
}
