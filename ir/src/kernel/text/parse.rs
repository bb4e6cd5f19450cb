//! Parsing of kernels and statements.

use super::expr::Parser;
use super::lexer::Token;
use super::ops::UNARY;
use crate::diag::Diagnostic;
use crate::kernel::expr::{Expr, Ident};
use crate::kernel::tree::{
    Block, Buffer, Kernel, Level, LoadMods, Pipe, PipelineOp, Role, Space, Stmt, SyncScope, View,
};
use crate::types::{DType, SymbolDecl};

/// All kernels of a text. Errors: `kernel-syntax` with the place in `file`.
pub fn parse_kernels(file: &str, text: &str) -> Result<Vec<Kernel>, Diagnostic> {
    let mut p = Parser::new(file, text)?;
    let mut kernels = Vec::new();
    while *p.token() != Token::End {
        kernels.push(p.kernel()?);
    }
    Ok(kernels)
}

/// The only kernel of a text. Errors: as [`parse_kernels`], and if there is not exactly one.
pub fn parse_kernel(file: &str, text: &str) -> Result<Kernel, Diagnostic> {
    let mut kernels = parse_kernels(file, text)?;
    let found = kernels.len();
    match kernels.pop() {
        Some(k) if found == 1 => Ok(k),
        Some(_) | None => Err(Diagnostic::new("kernel-syntax", format!("expected one kernel, found {found}"))),
    }
}

fn space(word: &str) -> Option<Space> {
    match word {
        "in" => Some(Space::In),
        "out" => Some(Space::Out),
        "inout" => Some(Space::InOut),
        "work" => Some(Space::Work),
        "shared" => Some(Space::Shared),
        "cache" => Some(Space::Cache),
        "reg" => Some(Space::Reg),
        _ => None,
    }
}

impl Parser<'_> {
    fn kernel(&mut self) -> Result<Kernel, Diagnostic> {
        self.need_word("kernel")?;
        let name = self.name()?;
        self.need_word("target")?;
        let target = self.name()?;
        let attrs = self.attrs()?;
        let (constants, symbols, arguments) = (Vec::new(), Vec::new(), Vec::new());
        let (views, body, places) = (Vec::new(), Vec::new(), Vec::new());
        let mut k = Kernel { name, target, attrs, constants, symbols, arguments, views, body, places };
        self.need("{")?;
        while !self.eat("}") {
            if self.word("const") {
                self.constants(&mut k)?;
            } else if self.word("sym") {
                k.symbols.push(self.symbol()?);
            } else if self.word("view") {
                k.views.push(self.view()?);
            } else {
                let mut stmts = Vec::new();
                self.stmt(&mut stmts)?;
                for s in stmts {
                    match s {
                        Stmt::Buffer(b) if matches!(b.space, Space::In | Space::Out | Space::InOut | Space::Work) => {
                            k.arguments.push(b);
                        }
                        other => k.body.push(other),
                    }
                }
            }
        }
        Ok(k)
    }

    fn constants(&mut self, k: &mut Kernel) -> Result<(), Diagnostic> {
        loop {
            let name = self.name()?;
            self.need("=")?;
            k.constants.push((name, self.int()?));
            if !self.eat(",") {
                return Ok(());
            }
        }
    }

    fn symbol(&mut self) -> Result<SymbolDecl, Diagnostic> {
        let name = self.name()?;
        self.need_word("in")?;
        let low = self.int()?;
        self.need("..=")?;
        let high = self.int()?;
        let step = if self.word("by") { self.int()? } else { 1 };
        if low < 0 || high < low || step < 1 {
            return Err(self.error(format!("expected 0 <= low <= high and a positive step of `{name}`")));
        }
        Ok(SymbolDecl { name, low, high, step, likely: None })
    }

    fn axes(&mut self) -> Result<Vec<(Ident, Expr)>, Diagnostic> {
        self.need("[")?;
        self.list("]", |p| {
            let axis = p.name()?;
            p.need("=")?;
            Ok((axis, p.expr(0)?))
        })
    }

    fn view(&mut self) -> Result<View, Diagnostic> {
        let name = self.name()?;
        let axes = self.axes()?;
        self.need("=")?;
        let buffer = self.name()?;
        self.need("[")?;
        let dims = self.list("]", |p| {
            let e = p.expr(0)?;
            Ok((e, p.eat("?")))
        })?;
        Ok(View { name, axes, buffer, dims })
    }

    fn names(&mut self) -> Result<Vec<Ident>, Diagnostic> {
        let mut names = vec![self.name()?];
        while self.eat(",") {
            names.push(self.name()?);
        }
        Ok(names)
    }

    fn buffers(&mut self, space: Space) -> Result<Vec<Buffer>, Diagnostic> {
        let names = self.names()?;
        self.need(":")?;
        let word = self.name()?;
        let dtype = word.parse::<DType>().map_err(|e| {
            self.at -= 1;
            self.error(e)
        })?;
        let axes = self.axes()?;
        let attrs = self.attrs()?;
        let make = |name| Buffer { space, name, dtype, axes: axes.clone(), attrs: attrs.clone() };
        Ok(names.into_iter().map(make).collect())
    }

    fn block(&mut self) -> Result<Block, Diagnostic> {
        self.need("{")?;
        self.nested(|p| {
            let mut stmts = Vec::new();
            while !p.eat("}") {
                p.stmt(&mut stmts)?;
            }
            Ok(stmts)
        })
    }

    fn mods(&mut self) -> Result<LoadMods, Diagnostic> {
        let mut mods = LoadMods::default();
        loop {
            if self.word("pad") {
                mods.pad = Some(self.expr(UNARY)?);
            } else if self.word("on") {
                mods.on = Some(self.name()?);
            } else if self.word("multicast") {
                mods.multicast = true;
            } else if self.word("hint") {
                self.need("(")?;
                mods.hint = Some(self.name()?);
                self.need(")")?;
            } else {
                return Ok(mods);
            }
        }
    }

    /// One statement, or the buffers of one declaration.
    fn stmt(&mut self, out: &mut Block) -> Result<(), Diagnostic> {
        let Token::Name(word) = self.token().clone() else { return self.expected("a statement") };
        self.at += 1;
        if let Some(space) = space(&word) {
            out.extend(self.buffers(space)?.into_iter().map(Stmt::Buffer));
            return Ok(());
        }
        out.push(match word.as_str() {
            "par" => self.par()?,
            "for" => self.for_loop()?,
            "if" => {
                let condition = self.expr(0)?;
                let yes = self.block()?;
                let no = if self.word("else") { self.block()? } else { Vec::new() };
                Stmt::If { condition, yes, no }
            }
            "let" => self.let_stmt()?,
            "set" => {
                let name = self.name()?;
                self.need("=")?;
                Stmt::Set { name, value: self.expr(0)? }
            }
            "store" | "add" => {
                let add = word == "add";
                let access = self.access()?;
                let mods = self.mods()?;
                self.need(if add { "+=" } else { "=" })?;
                Stmt::Store { access, mods, value: self.expr(0)?, add }
            }
            "copy" => {
                let to = self.access()?;
                self.need("<-")?;
                let from = self.access()?;
                Stmt::Copy { to, from, mods: self.mods()? }
            }
            "mma" => self.mma()?,
            "pipe" => self.pipe()?,
            "roles" => self.roles()?,
            other => match self.sync_stmt(other)? {
                Some(s) => s,
                None => {
                    self.at -= 1;
                    return self.expected("a statement");
                }
            },
        });
        Ok(())
    }

    fn sync_stmt(&mut self, word: &str) -> Result<Option<Stmt>, Diagnostic> {
        Ok(Some(match word {
            "queue" => {
                let name = self.name()?;
                self.need_word("via")?;
                Stmt::Queue(name, self.name()?)
            }
            "acquire" => Stmt::Pipeline(PipelineOp::Acquire, self.name()?),
            "commit" => Stmt::Pipeline(PipelineOp::Commit, self.name()?),
            "wait" => Stmt::Pipeline(PipelineOp::Wait, self.name()?),
            "release" => Stmt::Pipeline(PipelineOp::Release, self.name()?),
            "skip" => {
                let pipe = self.name()?;
                Stmt::Skip(pipe, self.expr(0)?)
            }
            "await" => {
                let queue = self.name()?;
                Stmt::Await(queue, self.small()?)
            }
            "sync" => {
                let scope = match &*self.name()? {
                    "team" => SyncScope::Team,
                    "block" => SyncScope::Block,
                    "cluster" => SyncScope::Cluster,
                    "grid" => SyncScope::Grid,
                    "prior" => SyncScope::Prior,
                    _ => {
                        self.at -= 1;
                        return self.expected("`team`, `block`, `cluster`, `grid` or `prior`");
                    }
                };
                Stmt::Sync(scope, self.word("async"))
            }
            "turn_wait" => {
                let access = self.access()?;
                self.need("==")?;
                Stmt::TurnWait(access, self.expr(0)?)
            }
            "turn_next" => Stmt::TurnNext(self.access()?),
            _ => return Ok(None),
        }))
    }

    fn par(&mut self) -> Result<Stmt, Diagnostic> {
        let mut vars = Vec::new();
        while matches!(self.ahead(1), Token::Name(s) if s == "in") {
            let var = self.name()?;
            self.at += 1;
            vars.push((var, self.expr(0)?));
            if !self.eat(",") {
                break;
            }
        }
        self.need_word("at")?;
        let level = match &*self.name()? {
            "grid" => Level::Grid,
            "cluster" => Level::Cluster,
            "warp" => Level::Warp,
            _ => {
                self.at -= 1;
                return self.expected("`grid`, `cluster` or `warp`");
            }
        };
        Ok(Stmt::Par { vars, level, body: self.block()? })
    }

    fn for_loop(&mut self) -> Result<Stmt, Diagnostic> {
        let var = self.name()?;
        self.need_word("in")?;
        let low = self.expr(0)?;
        self.need("..")?;
        let high = self.expr(0)?;
        let step = if self.word("step") { Some(self.expr(0)?) } else { None };
        let unroll = self.word("unroll");
        Ok(Stmt::For { var, low, high, step, unroll, body: self.block()? })
    }

    fn let_stmt(&mut self) -> Result<Stmt, Diagnostic> {
        let mut names = self.names()?;
        self.need("=")?;
        if matches!((self.token(), self.ahead(1)), (Token::Name(l), Token::Name(_)) if l == "load") {
            self.at += 1;
            let access = self.access()?;
            let mods = self.mods()?;
            return match (names.pop(), names.len()) {
                (Some(name), 0) => Ok(Stmt::Load { name, access, mods }),
                (Some(_) | None, _) => Err(self.error("expected one name before `= load`".into())),
            };
        }
        Ok(Stmt::Let { names, value: self.expr(0)? })
    }

    fn mma(&mut self) -> Result<Stmt, Diagnostic> {
        let to = self.access()?;
        self.need("+=")?;
        let mut terms = Vec::new();
        loop {
            let a = self.access()?;
            self.need("*")?;
            terms.push((a, self.access()?));
            if !self.eat(",") {
                break;
            }
        }
        self.need_word("via")?;
        let via = self.name()?;
        let init = if self.word("init") { Some(self.expr(0)?) } else { None };
        let on = if self.word("on") { Some(self.name()?) } else { None };
        Ok(Stmt::Mma { to, terms, via, init, on })
    }

    fn pipe(&mut self) -> Result<Stmt, Diagnostic> {
        let name = self.name()?;
        self.need("[")?;
        let stages = self.small()?;
        self.need("]")?;
        self.need_word("via")?;
        let via = self.name()?;
        self.need_word("from")?;
        let from = self.name()?;
        self.need_word("to")?;
        let to = self.name()?;
        let attrs = self.attrs()?;
        self.need("{")?;
        let mut buffers = Vec::new();
        while !self.eat("}") {
            buffers.extend(self.buffers(Space::Shared)?);
        }
        Ok(Stmt::Pipe(Pipe { name, stages, via, from, to, attrs, buffers }))
    }

    fn roles(&mut self) -> Result<Stmt, Diagnostic> {
        self.need("{")?;
        let mut roles = Vec::new();
        while !self.eat("}") {
            let name = self.name()?;
            let mut instances = None;
            if self.eat("(") {
                let var = self.name()?;
                self.need_word("in")?;
                instances = Some((var, self.small()?));
                self.need(")")?;
            }
            self.need_word("warps")?;
            let first = self.small()?;
            self.need("..")?;
            let end = self.small()?;
            let registers = if self.word("regs") { Some(self.small()?) } else { None };
            roles.push(Role { name, instances, first, end, registers, body: self.block()? });
        }
        Ok(Stmt::Roles(roles))
    }
}
