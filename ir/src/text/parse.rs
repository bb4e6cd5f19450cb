//! Text to modules: functions, nodes, values. No recursion over nodes, memory in proportion to the text.

use super::lexer::{Lexer, Token, TokenKind};
use super::names;
use crate::diag::{Diagnostic, Place};
use crate::graph::{Derivative, Function, Module, NodeId, Param, Role, Value};
use crate::op::{Attr, GraphKind, GraphOp, Name, ReduceKind, ScalarKind, ScalarOp};
use crate::types::{Symbol, SymbolDecl};
use crate::verify::Verified;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Reads a module; `file` names the text in places. Nodes get the place of their op's name.
///
/// Errors: `syntax`, `nesting`, `text-size`, `unknown-op`, `unknown-value`, `unknown-symbol`, `unknown-dtype`,
/// `duplicate-name`, `bad-attribute`, `missing-attribute`, `bad-element`, `array-size`, `type-mismatch`, and those of
/// [`crate::infer::infer`] and [`crate::verify::verify`]; all with the line and a caret.
pub fn parse(file: &str, text: &str) -> Result<Module, Diagnostic> {
    parse_verified(file, text).map(Verified::into_inner)
}

/// [`parse`], for whom compiles the module as it is.
///
/// Errors: those of [`parse`].
pub fn parse_verified(file: &str, text: &str) -> Result<Verified<Module>, Diagnostic> {
    // Some editors begin a file with a byte order mark, which says nothing in UTF-8.
    let mut lexer = Lexer::new(file, text.strip_prefix('\u{feff}').unwrap_or(text))?;
    let token = lexer.next();
    let (scope, declared) = (Arc::from(""), None);
    let mut parser = Parser { lexer, token, ops: rows().collect(), declared, pending: Vec::new(), factors: 0, scope };
    let mut module = Module::default();
    while parser.token.kind != TokenKind::End {
        let at = parser.token;
        let f = parser.function(&module)?;
        if module.functions.contains_key(&f.name) {
            return Err(parser.error(&at, "duplicate-name", format!("`@{}` is declared twice", f.name), ""));
        }
        module.functions.insert(f.name.clone(), f);
    }
    Verified::pushed(module).map_err(|d| parser.lexer.with_lines(d))
}

/// A value in text: `%0`, or `%x` and `%"x"`.
#[derive(PartialEq, Eq, Hash)]
enum ValueName<'t> {
    Number(u64),
    Name(Cow<'t, str>),
}

/// The values of a function by name.
#[derive(Default)]
struct Values<'t> {
    /// `%0`, `%1` and so on, as far as they are defined in order.
    numbered: Vec<NodeId>,
    others: HashMap<ValueName<'t>, NodeId>,
    /// Whether others have numbers.
    unordered: bool,
}

impl<'t> Values<'t> {
    fn get(&self, name: &ValueName<'t>) -> Option<NodeId> {
        let numbered = match name {
            ValueName::Number(n) => usize::try_from(*n).ok().and_then(|n| self.numbered.get(n)),
            ValueName::Name(_) => None,
        };
        numbered.or_else(|| self.others.get(name)).copied()
    }

    /// `false` if it is defined already.
    fn insert(&mut self, name: ValueName<'t>, id: NodeId) -> bool {
        if let ValueName::Number(n) = name {
            if n == self.numbered.len() as u64 && !self.unordered {
                self.numbered.push(id);
                return true;
            }
            self.unordered = true;
        }
        self.get(&name).is_none() && self.others.insert(name, id).is_none()
    }
}

/// What a name of an op stands for.
#[derive(Clone, Copy)]
enum Row {
    Graph(GraphKind),
    Scalar(ScalarKind),
    Reduce(ReduceKind),
}

/// The names of ops in text.
fn rows() -> impl Iterator<Item = (&'static str, Row)> {
    // These three have no name of their own in text.
    let hidden = |k: &GraphKind| matches!(k, GraphKind::Parameter | GraphKind::Map | GraphKind::Reduce);
    let graph = GraphKind::ALL.iter().filter(move |k| !hidden(k)).map(|k| (k.info().name, Row::Graph(*k)));
    let scalar = ScalarKind::ALL.iter().map(|k| (k.info().name, Row::Scalar(*k)));
    graph.chain(scalar).chain(ReduceKind::ALL.iter().map(|k| (k.name(), Row::Reduce(*k))))
}

/// The parser: one token ahead.
pub(super) struct Parser<'t> {
    lexer: Lexer<'t>,
    /// The token to be read next.
    pub(super) token: Token<'t>,
    /// [`rows`] by name.
    ops: HashMap<&'static str, Row>,
    /// Symbols of the function, once its header is read.
    pub(super) declared: Option<BTreeSet<Symbol>>,
    /// Symbols used in the header before they are declared.
    pub(super) pending: Vec<Token<'t>>,
    /// Factors of the dim that is being read.
    pub(super) factors: usize,
    /// The scope of the node before: most nodes share it.
    scope: Arc<str>,
}

impl<'t> Parser<'t> {
    pub(super) fn error(
        &self,
        at: &Token,
        code: &'static str,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Diagnostic {
        // Nobody has read past it, so it stands before all that seems to follow from it.
        self.stray().unwrap_or_else(|| self.lexer.error(at, code, message, label))
    }

    /// The error for what is next if it begins no token.
    fn stray(&self) -> Option<Diagnostic> {
        let message = match (self.token.kind, self.token.text) {
            (TokenKind::Stray, "\"") => "this string has no closing quote on its line",
            (TokenKind::Stray, _) => "this character begins no token",
            _token => return None,
        };
        Some(self.lexer.error(&self.token, "syntax", message, ""))
    }

    /// The error for a token that does not fit here.
    pub(super) fn unexpected(&self, want: &str) -> Diagnostic {
        self.error(&self.token, "syntax", format!("expected {want}, found {}", self.token.shown()), "")
    }

    /// Reads any token.
    pub(super) fn advance(&mut self) -> Token<'t> {
        let next = self.lexer.next();
        std::mem::replace(&mut self.token, next)
    }

    /// Reads `mark` if it is next.
    pub(super) fn eat(&mut self, mark: &str) -> bool {
        let found = self.token.is_mark(mark);
        if found {
            self.advance();
        }
        found
    }

    pub(super) fn expect(&mut self, mark: &str) -> Result<(), Diagnostic> {
        if self.eat(mark) { Ok(()) } else { Err(self.unexpected(&format!("`{mark}`"))) }
    }

    fn of_kind(&mut self, kind: TokenKind, want: &str) -> Result<Token<'t>, Diagnostic> {
        if self.token.kind == kind { Ok(self.advance()) } else { Err(self.unexpected(want)) }
    }

    pub(super) fn ident(&mut self, want: &str) -> Result<Token<'t>, Diagnostic> {
        self.of_kind(TokenKind::Ident, want)
    }

    pub(super) fn quoted(&mut self, want: &str) -> Result<Token<'t>, Diagnostic> {
        self.of_kind(TokenKind::Quoted, want)
    }

    fn keyword(&mut self, word: &str) -> bool {
        let found = self.token.kind == TokenKind::Ident && self.token.text == word;
        if found {
            self.advance();
        }
        found
    }

    /// A number without sign.
    pub(super) fn integer(&mut self, want: &str) -> Result<i64, Diagnostic> {
        if !self.token.text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(self.unexpected(want));
        }
        let at = self.of_kind(TokenKind::Number, want)?;
        at.text.parse().map_err(|_| {
            let message = format!("expected {want} below 2^63, found {}", at.shown());
            self.error(&at, "bad-attribute", message, "")
        })
    }

    pub(super) fn signed(&mut self, want: &str) -> Result<i64, Diagnostic> {
        let negative = self.eat("-");
        self.integer(want).map(|n| if negative { -n } else { n })
    }

    /// Items between commas up to the mark `end`.
    pub(super) fn items<T>(
        &mut self,
        end: &str,
        mut item: impl FnMut(&mut Parser<'t>) -> Result<T, Diagnostic>,
    ) -> Result<Vec<T>, Diagnostic> {
        let mut out = Vec::new();
        if self.eat(end) {
            return Ok(out);
        }
        loop {
            out.push(item(self)?);
            if !self.eat(",") {
                self.expect(end)?;
                return Ok(out);
            }
        }
    }

    /// An identifier or a quoted string.
    pub(super) fn name(&mut self, want: &str) -> Result<Cow<'t, str>, Diagnostic> {
        if self.token.kind != TokenKind::Quoted {
            return self.ident(want).map(|t| t.text.into());
        }
        let at = self.advance();
        let name = names::unquoted(at.text);
        name.map(Cow::Owned).ok_or_else(|| self.error(&at, "syntax", "this string has a wrong escape", ""))
    }

    /// What stands behind `%`.
    fn value_name(&mut self) -> Result<ValueName<'t>, Diagnostic> {
        let at = self.token;
        if at.kind != TokenKind::Number {
            return self.name("the name of a value").map(ValueName::Name);
        }
        self.advance();
        let number = at.text.parse().map_err(|_| self.error(&at, "syntax", "expected the number of a value", ""))?;
        Ok(ValueName::Number(number))
    }

    fn value(&mut self, f: &Function, values: &Values<'t>) -> Result<Value, Diagnostic> {
        if !self.token.is_mark("%") {
            return Err(self.unexpected("a value such as `%0`"));
        }
        self.advance();
        let at = self.token;
        let name = self.value_name()?;
        let Some(node) = values.get(&name) else {
            let message = format!("there is no value `%{}` before this line", at.shown().trim_matches('`'));
            return Err(self.error(&at, "unknown-value", message, ""));
        };
        let count = f.nodes[node.index()].types.len();
        let index = if self.eat("#") { Some(self.integer("the number of a result")?) } else { None };
        let fits = match index {
            Some(i) => u32::try_from(i).ok().filter(|i| (*i as usize) < count),
            None => (count == 1).then_some(0),
        };
        match fits {
            Some(index) => Ok(Value { node, index }),
            None => {
                let text = at.text;
                let message = format!("`%{text}` has {count} results, written `%{text}#0` and so on");
                Err(self.error(&at, "unknown-value", message, ""))
            }
        }
    }

    fn function(&mut self, module: &Module) -> Result<Function, Diagnostic> {
        if !self.keyword("func") {
            return Err(self.unexpected("`func`"));
        }
        self.expect("@")?;
        let name = self.name("the name of a function")?;
        (self.declared, self.pending) = (None, Vec::new());
        self.expect("(")?;
        let mut values = Values::default();
        let mut origins = Vec::new();
        let params = self.items(")", |p| p.param(&mut values, &mut origins))?;
        let results_at = self.token;
        let claimed = if self.eat("->") { Some(self.type_list()?) } else { None };
        let derivative = self.derivative()?;
        let symbols = self.symbols()?;
        self.expect("{")?;
        let mut f = Function { derivative, ..Function::new(&name, symbols, params) };
        for (node, (place, scope)) in f.nodes.iter_mut().zip(origins) {
            (node.places, node.scope) = (vec![place], scope);
        }
        while !self.keyword("return") {
            self.node(module, &mut f, &mut values)?;
        }
        while self.token.is_mark("%") {
            let v = self.value(&f, &values)?;
            f.results.push(v);
            if !self.eat(",") {
                break;
            }
        }
        self.expect("}")?;
        let types: Vec<_> = f.results.iter().map(|&r| f.ty(r)).collect();
        if let Some(claimed) = claimed.filter(|c| !c.iter().eq(types.iter().copied())) {
            let differs = claimed.iter().zip(&types).enumerate().find(|(_, (claimed, found))| claimed != *found);
            let message = match differs {
                Some((i, (_, found))) => format!("result {i} of `@{name}` is {found}"),
                None => format!("`@{name}` returns {} results", types.len()),
            };
            let promised = match differs {
                Some((_, (claimed, _))) => format!("{claimed} is promised here"),
                None => format!("{} are promised here", claimed.len()),
            };
            return Err(self.error(&results_at, "type-mismatch", message, &promised));
        }
        Ok(f)
    }

    /// `role %name: type @"scope"`.
    fn param(&mut self, values: &mut Values<'t>, origins: &mut Vec<(Place, Arc<str>)>) -> Result<Param, Diagnostic> {
        let role = match self.token.text {
            "weight" => Role::Weight,
            "donated" => Role::Donated,
            _ => Role::Input,
        };
        if role != Role::Input {
            self.advance();
        }
        self.expect("%")?;
        let at = self.token;
        let name = self.name("the name of a parameter")?;
        self.expect(":")?;
        let ty = self.ty()?;
        self.scope()?;
        origins.push((self.lexer.place(&at), self.scope.clone()));
        let id = NodeId(origins.len() as u32 - 1);
        if !values.insert(ValueName::Name(name.clone()), id) {
            return Err(self.error(&at, "duplicate-name", format!("`%{}` is declared twice", at.text), ""));
        }
        Ok(Param { name: name.into(), ty, role })
    }

    /// `stop_gradient`, `checkpoint`, `custom_vjp=[@forward, @backward]`, `custom_jvp=@tangent`, or nothing.
    fn derivative(&mut self) -> Result<Derivative, Diagnostic> {
        let function = |p: &mut Parser<'t>| {
            p.expect("@")?;
            p.name("the name of a function").map(Name::from)
        };
        if self.keyword("stop_gradient") {
            return Ok(Derivative::Zero);
        }
        if self.keyword("checkpoint") {
            return Ok(Derivative::Checkpoint);
        }
        if self.keyword("custom_vjp") {
            self.expect("=")?;
            self.expect("[")?;
            let forward = function(self)?;
            self.expect(",")?;
            let backward = function(self)?;
            self.expect("]")?;
            return Ok(Derivative::Reverse { forward, backward });
        }
        if self.keyword("custom_jvp") {
            self.expect("=")?;
            return Ok(Derivative::Forward { tangent: function(self)? });
        }
        Ok(Derivative::OfOps)
    }

    /// `where name in low..=high by step likely value, ...`, or nothing; then the symbols used before must be declared.
    fn symbols(&mut self) -> Result<Vec<SymbolDecl>, Diagnostic> {
        let mut out = Vec::new();
        let mut known = BTreeSet::new();
        if self.keyword("where") {
            loop {
                let at = self.ident("the name of a size")?;
                if !self.keyword("in") {
                    return Err(self.unexpected("`in`"));
                }
                let low = self.integer("the smallest size")?;
                self.expect("..=")?;
                let high = self.integer("the largest size")?;
                let step = if self.keyword("by") { self.integer("a step")? } else { 1 };
                let likely = if self.keyword("likely") { Some(self.integer("a likely size")?) } else { None };
                let decl = SymbolDecl { name: at.text.into(), low, high, step, likely };
                crate::verify::symbol(&decl).map_err(|d| self.error(&at, d.code, d.message, ""))?;
                if !known.insert(decl.name.clone()) {
                    return Err(self.error(&at, "duplicate-name", format!("{} is declared twice", at.shown()), ""));
                }
                out.push(decl);
                if !self.eat(",") {
                    break;
                }
            }
        }
        if let Some(at) = self.pending.iter().find(|t| !known.contains(t.text)) {
            return Err(self.undeclared(at));
        }
        self.declared = Some(known);
        Ok(out)
    }

    /// `@"scope"` or nothing, into `self.scope`.
    fn scope(&mut self) -> Result<(), Diagnostic> {
        let scope = if self.eat("@") { self.name("a scope")? } else { "".into() };
        if *scope != *self.scope {
            self.scope = scope.into();
        }
        Ok(())
    }

    /// `%name = op operands attributes : types @"scope"`.
    fn node(&mut self, module: &Module, f: &mut Function, values: &mut Values<'t>) -> Result<(), Diagnostic> {
        if !self.token.is_mark("%") {
            return Err(self.unexpected("`return`, or a node such as `%0 = ..`"));
        }
        self.advance();
        let name_at = self.token;
        let name = self.value_name()?;
        self.expect("=")?;
        let at = self.ident("the name of an op")?;
        let row = *self.ops.get(at.text).ok_or_else(|| self.unknown_op(&at))?;
        let mut args = Vec::new();
        if self.token.is_mark("%") {
            loop {
                args.push(self.value(f, values)?);
                if !self.eat(",") {
                    break;
                }
            }
        }
        let op = self.op(&at, row)?;
        let types_at = self.token;
        let claimed = if self.eat(":") { Some(self.type_list()?) } else { None };
        self.scope()?;
        if let Some(stray) = self.stray() {
            return Err(stray);
        }
        let place = self.lexer.place(&at);
        let id = f.push(module, op, &args, Some(place), &self.scope).map_err(|d| self.lexer.with_lines(d))?;
        let types = &f.nodes[id.index()].types;
        if claimed.is_some_and(|c| c != *types) {
            let found: Vec<String> = types.iter().map(|t| t.to_string()).collect();
            let message = format!("{} gives {}, which is not the type written here", at.shown(), found.join(", "));
            return Err(self.error(&types_at, "type-mismatch", message, ""));
        }
        if !values.insert(name, id) {
            let message = format!("`%{}` is defined twice", name_at.text);
            return Err(self.error(&name_at, "duplicate-name", message, ""));
        }
        Ok(())
    }

    fn unknown_op(&self, at: &Token) -> Diagnostic {
        let diag = self.error(at, "unknown-op", format!("there is no op {}", at.shown()), "");
        match names::nearest(at.text, rows().map(|(n, _)| n)) {
            Some(near) => diag.note(format!("did you mean `{near}`?")),
            None => diag,
        }
    }

    fn op(&mut self, at: &Token<'t>, row: Row) -> Result<GraphOp, Diagnostic> {
        let op = match row {
            Row::Graph(kind) => GraphOp::from_parts(kind, &self.attrs(at, kind.info().attrs)?),
            Row::Scalar(kind) => {
                ScalarOp::from_parts(kind, &self.attrs(at, kind.info().attrs)?).map(|op| GraphOp::Map { op })
            }
            Row::Reduce(reduction) => {
                let row = GraphKind::Reduce.info().attrs;
                let rest: Vec<_> = row.iter().copied().filter(|(_, ty)| *ty != "ReduceKind").collect();
                let mut attrs = self.attrs(at, &rest)?;
                let hole = row.iter().position(|(_, ty)| *ty == "ReduceKind").unwrap_or(0);
                attrs.insert(hole, Attr::ReduceKind(reduction));
                GraphOp::from_parts(GraphKind::Reduce, &attrs)
            }
        };
        op.ok_or_else(|| Diagnostic::bug(format!("attributes of `{}` do not fit its row", at.text)))
    }
}
