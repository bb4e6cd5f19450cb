//! Parsing of expressions and accesses.

use super::lexer::{Source, Spot, Token, lex};
use super::ops;
use crate::diag::Diagnostic;
use crate::kernel::expr::{Access, Expr, Ident, IndexDim};
use crate::kernel::tree::BufferAttr;
use crate::op::ScalarOp;

/// Nesting that is accepted, of blocks and expressions together.
const DEPTH: u32 = 200;

/// State of the parser: tokens and a position.
pub(super) struct Parser<'a> {
    pub source: Source<'a>,
    pub spots: Vec<Spot>,
    pub at: usize,
    depth: u32,
}

impl<'a> Parser<'a> {
    pub(super) fn new(file: &str, text: &'a str) -> Result<Parser<'a>, Diagnostic> {
        let source = Source { file: file.into(), text };
        let spots = lex(&source)?;
        Ok(Parser { source, spots, at: 0, depth: 0 })
    }

    pub(super) fn token(&self) -> &Token {
        self.ahead(0)
    }

    pub(super) fn ahead(&self, n: usize) -> &Token {
        self.spots.get(self.at + n).map_or(&Token::End, |s| &s.token)
    }

    /// An error at the present token.
    pub(super) fn error(&self, message: String) -> Diagnostic {
        match self.spots.get(self.at).or(self.spots.last()) {
            Some(s) => self.source.error(message, s.line, s.column, s.length),
            None => Diagnostic::bug("a token list without end"),
        }
    }

    pub(super) fn expected<T>(&self, what: &str) -> Result<T, Diagnostic> {
        Err(self.error(format!("expected {what}, found {}", self.token().shown())))
    }

    pub(super) fn is(&self, sign: &str) -> bool {
        matches!(self.token(), Token::Sign(s) if *s == sign)
    }

    pub(super) fn eat(&mut self, sign: &str) -> bool {
        let found = self.is(sign);
        self.at += usize::from(found);
        found
    }

    pub(super) fn need(&mut self, sign: &str) -> Result<(), Diagnostic> {
        if self.eat(sign) { Ok(()) } else { self.expected(&format!("`{sign}`")) }
    }

    pub(super) fn word(&mut self, word: &str) -> bool {
        let found = matches!(self.token(), Token::Name(s) if s == word);
        self.at += usize::from(found);
        found
    }

    pub(super) fn need_word(&mut self, word: &str) -> Result<(), Diagnostic> {
        if self.word(word) { Ok(()) } else { self.expected(&format!("`{word}`")) }
    }

    pub(super) fn name(&mut self) -> Result<Ident, Diagnostic> {
        if let Token::Name(s) = self.token() {
            let name: Ident = s.as_str().into();
            self.at += 1;
            return Ok(name);
        }
        self.expected("a name")
    }

    /// An integer with optional minus sign.
    pub(super) fn int(&mut self) -> Result<i64, Diagnostic> {
        let minus = self.eat("-");
        let Token::Int(n) = *self.token() else { return self.expected("an integer") };
        let value = if minus { 0i64.checked_sub_unsigned(n) } else { i64::try_from(n).ok() };
        let value = value.ok_or_else(|| self.error(format!("the integer {n} does not fit 64 bits")))?;
        self.at += 1;
        Ok(value)
    }

    pub(super) fn small(&mut self) -> Result<u32, Diagnostic> {
        if let Token::Int(n) = *self.token() {
            let n = u32::try_from(n).map_err(|_| self.error(format!("the count {n} does not fit 32 bits")))?;
            self.at += 1;
            return Ok(n);
        }
        self.expected("a count")
    }

    /// Items up to `end`, separated by commas; a comma may stand before the end.
    pub(super) fn list<T>(
        &mut self,
        end: &str,
        mut item: impl FnMut(&mut Self) -> Result<T, Diagnostic>,
    ) -> Result<Vec<T>, Diagnostic> {
        let mut items = Vec::new();
        while !self.is(end) {
            items.push(item(self)?);
            if !self.eat(",") {
                break;
            }
        }
        self.need(end)?;
        Ok(items)
    }

    /// Runs `f` one level deeper. Errors: nesting beyond [`DEPTH`].
    pub(super) fn nested<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T, Diagnostic>) -> Result<T, Diagnostic> {
        if self.depth >= DEPTH {
            return Err(self.error(format!("more than {DEPTH} levels of nesting")));
        }
        self.depth += 1;
        let result = f(self);
        self.depth -= 1;
        result
    }

    /// An expression whose operators all bind at least as tightly as `least`.
    pub(super) fn expr(&mut self, least: u8) -> Result<Expr, Diagnostic> {
        self.nested(|p| {
            let mut left = p.unary()?;
            while let Token::Sign(sign) = *p.token() {
                let Some((op, strength)) = ops::by_sign(sign) else { break };
                if strength < least {
                    break;
                }
                p.at += 1;
                let right = p.expr(strength + 1)?;
                left = Expr::scalar(op, [left, right]);
            }
            Ok(left)
        })
    }

    /// A sign and an operand.
    pub(super) fn unary(&mut self) -> Result<Expr, Diagnostic> {
        if self.is("-") {
            match self.ahead(1) {
                Token::Int(_) => return Ok(Expr::Int(self.int()?)),
                Token::Real(x) => {
                    let x = -*x;
                    self.at += 2;
                    return Ok(Expr::Real(x));
                }
                Token::Name(s) if s == "inf" => {
                    self.at += 2;
                    return Ok(Expr::Real(f64::NEG_INFINITY));
                }
                Token::Name(_) | Token::Sign(_) | Token::End => {}
            }
            self.at += 1;
            return Ok(Expr::scalar(ScalarOp::Neg {}, [self.nested(Self::unary)?]));
        }
        if self.eat("!") {
            return Ok(Expr::scalar(ScalarOp::Not {}, [self.nested(Self::unary)?]));
        }
        self.primary()
    }

    fn primary(&mut self) -> Result<Expr, Diagnostic> {
        match self.token().clone() {
            Token::Int(_) => Ok(Expr::Int(self.int()?)),
            Token::Real(x) => {
                self.at += 1;
                Ok(Expr::Real(x))
            }
            Token::Name(name) => {
                if matches!(self.ahead(1), Token::Sign("(")) {
                    return self.call(&name);
                }
                self.at += 1;
                Ok(match name.as_str() {
                    "inf" => Expr::Real(f64::INFINITY),
                    "nan" => Expr::Real(f64::NAN),
                    other => Expr::name(other),
                })
            }
            Token::Sign("(") => {
                self.at += 1;
                let e = self.expr(0)?;
                self.need(")")?;
                Ok(e)
            }
            Token::Sign(_) | Token::End => self.expected("an expression"),
        }
    }

    fn call(&mut self, name: &str) -> Result<Expr, Diagnostic> {
        let start = self.at;
        self.at += 2;
        if name == "iota" {
            let axis = self.name()?;
            self.need(",")?;
            let from = self.expr(0)?;
            self.need(",")?;
            let size = self.expr(0)?;
            self.need(")")?;
            return Ok(Expr::Iota(axis, Box::new(from), Box::new(size)));
        }
        if name == "order" {
            return self.order();
        }
        if let Some(reduce) = ops::reduce_by_name(name) {
            let tile = self.expr(0)?;
            self.need(",")?;
            let axis = self.name()?;
            self.need(")")?;
            return Ok(Expr::Reduce(reduce, Box::new(tile), axis));
        }
        let mut args = self.list(")", |p| p.expr(0))?;
        if let (Some(op), 2) = (ops::binary_by_name(name), args.len())
            && let (Some(b), Some(a)) = (args.pop(), args.pop())
        {
            return Ok(Expr::Binary(op, Box::new(a), Box::new(b)));
        }
        if let Some(op) = ops::by_call(name, args.len()) {
            return Ok(Expr::Scalar(op, args));
        }
        self.at = start;
        Err(self.error(format!("expected a scalar op, found `{name}` with {} arguments", args.len())))
    }

    fn order(&mut self) -> Result<Expr, Diagnostic> {
        let mut args = Vec::new();
        for _ in 0..3 {
            args.push(self.expr(0)?);
            self.need(",")?;
        }
        let mut kind = self.name()?.to_string();
        if self.eat("(") {
            kind = format!("{kind}({})", self.small()?);
            self.need(")")?;
        }
        self.need(")")?;
        Ok(Expr::Order(args, kind.into()))
    }

    /// `buffer@back.field[dims]`.
    pub(super) fn access(&mut self) -> Result<Access, Diagnostic> {
        let buffer = self.name()?;
        let back = if self.eat("@") { self.small()? } else { 0 };
        let field = if self.eat(".") { Some(self.name()?) } else { None };
        let dims = if self.eat("[") { Some(self.list("]", Self::dim)?) } else { None };
        Ok(Access { buffer, back, field, dims })
    }

    fn dim(&mut self) -> Result<IndexDim, Diagnostic> {
        if self.eat(":") {
            return Ok(IndexDim::All);
        }
        if matches!((self.token(), self.ahead(1)), (Token::Name(g), Token::Name(_)) if g == "gather") {
            self.at += 1;
            return Ok(IndexDim::Gather(self.name()?));
        }
        let start = self.expr(0)?;
        let open = self.is("+?");
        if self.eat("+:") || self.eat("+?") {
            let size = self.expr(0)?;
            let upto = if self.word("upto") { Some(self.expr(0)?) } else { None };
            return Ok(IndexDim::Range { start, size, open, upto });
        }
        if self.eat("!") {
            return Ok(IndexDim::Checked { at: start });
        }
        Ok(IndexDim::Point { at: start, open: self.eat("?") })
    }

    /// Attributes on the same line: `align(64) packed(w) resident`.
    pub(super) fn attrs(&mut self) -> Result<Vec<BufferAttr>, Diagnostic> {
        let mut attrs = Vec::new();
        while self.spots.get(self.at).is_some_and(|s| !s.fresh) && matches!(self.token(), Token::Name(_)) {
            let name = self.name()?;
            let args = if self.eat("(") { self.list(")", |p| p.expr(0))? } else { Vec::new() };
            attrs.push(BufferAttr { name, args });
        }
        Ok(attrs)
    }
}
