//! Axis unification as register coalescing: a dim of a value is a virtual register, elementwise alignment is a move, and
//! two axes interfere where one iteration space holds both. What may not be one axis stays two with the same atoms.

use smallvec::SmallVec;
use std::collections::BTreeSet;
use tilewright_ir::types::Dim;

/// Number of an axis variable.
pub(super) type Var = usize;
/// A few axes.
pub(super) type Atoms = SmallVec<[Var; 4]>;

struct Variable {
    dim: Dim,
    /// Union-find; itself at the top.
    parent: Var,
    /// Atoms it was split into, major to minor.
    kids: Option<Vec<Var>>,
    /// Of an atom, those that some iteration space holds beside it: they must stay different.
    apart: BTreeSet<Var>,
}

/// All axis variables of a function.
#[derive(Default)]
pub(super) struct Coalescer {
    vars: Vec<Variable>,
    /// Unions refused: not one axis, but always the same atoms.
    mirrors: Vec<(Var, Var)>,
}

impl Coalescer {
    /// A new axis.
    pub fn fresh(&mut self, dim: &Dim) -> Var {
        self.vars.push(Variable { dim: dim.clone(), parent: self.vars.len(), kids: None, apart: BTreeSet::new() });
        self.vars.len() - 1
    }

    /// Number of variables.
    pub fn len(&self) -> usize {
        self.vars.len()
    }

    /// A new axis made of others, major to minor.
    pub fn merged(&mut self, dim: &Dim, kids: Vec<Var>) -> Var {
        let var = self.fresh(dim);
        self.vars[var].kids = Some(kids);
        var
    }

    /// Size of an axis.
    pub fn dim(&self, var: Var) -> &Dim {
        &self.vars[var].dim
    }

    fn find(&self, mut var: Var) -> Var {
        while self.vars[var].parent != var {
            var = self.vars[var].parent;
        }
        var
    }

    /// Atoms of an axis, major to minor; an axis of size 1 has none.
    pub fn leaves(&self, var: Var) -> Atoms {
        self.all(&[var])
    }

    /// Atoms of several axes in order.
    pub fn all(&self, vars: &[Var]) -> Atoms {
        let (mut out, mut stack) = (Atoms::new(), Atoms::new());
        for &var in vars {
            stack.push(var);
            while let Some(next) = stack.pop() {
                let top = self.find(next);
                match &self.vars[top].kids {
                    _ if self.vars[top].dim.is(1) => {}
                    Some(kids) => stack.extend(kids.iter().rev().copied()),
                    None => out.push(top),
                }
            }
        }
        out
    }

    /// Declares an iteration space; `false` if one atom is in it twice.
    pub fn space(&mut self, vars: &[Var]) -> bool {
        let mut leaves = self.all(vars);
        leaves.sort_unstable();
        let distinct = leaves.windows(2).all(|w| w[0] != w[1]);
        for &leaf in &leaves {
            let others = leaves.iter().copied().filter(|&other| other != leaf);
            self.vars[leaf].apart.extend(others);
        }
        distinct
    }

    /// Splits an atom into (major, minor); `None` if the minor size does not divide it.
    pub fn split(&mut self, leaf: Var, minor: &Dim) -> Option<(Var, Var)> {
        let major = self.vars[leaf].dim.div_exact(minor)?;
        let (h, l) = (self.fresh(&major), self.fresh(minor));
        self.vars[leaf].kids = Some(vec![h, l]);
        self.replace(leaf, &[h, l]);
        self.vars[h].apart.insert(l);
        self.vars[l].apart.insert(h);
        Some((h, l))
    }

    /// Spaces that held an atom hold `with` instead.
    fn replace(&mut self, atom: Var, with: &[Var]) {
        let apart = std::mem::take(&mut self.vars[atom].apart);
        for &other in &apart {
            let set = &mut self.vars[other].apart;
            set.remove(&atom);
            set.extend(with);
        }
        for &new in with {
            self.vars[new].apart.extend(&apart);
        }
    }

    /// Splits two lists of atoms until they pair up by size, from the minor end; `None` if they do not factor.
    fn pairs(&mut self, mut a: Atoms, mut b: Atoms) -> Option<Vec<(Var, Var)>> {
        let mut out = Vec::new();
        while let (Some(&x), Some(&y)) = (a.last(), b.last()) {
            let (dx, dy) = (self.vars[x].dim.clone(), self.vars[y].dim.clone());
            a.pop();
            b.pop();
            if x == y || dx == dy {
                out.push((x, y));
            } else if dx.div_exact(&dy).is_some() {
                let (major, minor) = self.split(x, &dy)?;
                out.push((minor, y));
                a.push(major);
                if a.contains(&x) || b.contains(&x) {
                    return None;
                }
            } else if dy.div_exact(&dx).is_some() {
                let (major, minor) = self.split(y, &dx)?;
                out.push((x, minor));
                b.push(major);
                if a.contains(&y) || b.contains(&y) {
                    return None;
                }
            } else {
                return None;
            }
        }
        out.reverse();
        (a.is_empty() && b.is_empty()).then_some(out)
    }

    fn together(&self, x: Var, y: Var) -> bool {
        self.vars[x].apart.contains(&y)
    }

    /// Makes two axes one unless a space needs both; then they stay two with the same atoms. `false`: no common atoms.
    #[must_use]
    pub fn unify(&mut self, a: Var, b: Var) -> bool {
        let (la, lb) = (self.leaves(a), self.leaves(b));
        if la == lb {
            return true;
        }
        let Some(pairs) = self.pairs(la, lb) else { return false };
        if pairs.iter().any(|&(x, y)| x != y && self.together(x, y)) {
            self.mirrors.extend(pairs.into_iter().filter(|p| p.0 != p.1));
            return true;
        }
        for (x, y) in pairs {
            let (x, y) = (self.find(x), self.find(y));
            // An earlier pair may have made this one interfere.
            if x == y {
            } else if self.together(x, y) {
                self.mirrors.push((x, y));
            } else {
                self.vars[x].parent = y;
                self.replace(x, &[y]);
            }
        }
        true
    }

    /// An axis with the same atoms that is another name.
    pub fn mirror(&mut self, of: Var) -> Var {
        let dim = self.vars[of].dim.clone();
        let leaves = self.leaves(of);
        if leaves.len() < 2 {
            let var = self.fresh(&dim);
            self.mirrors.push((var, of));
            return var;
        }
        // Made of as many: where sizes are 0, they do not tell how the other name would have to be split.
        let mut kids = Vec::new();
        for leaf in leaves {
            let size = self.vars[leaf].dim.clone();
            let kid = self.fresh(&size);
            self.mirrors.push((kid, leaf));
            kids.push(kid);
        }
        self.merged(&dim, kids)
    }

    /// Splits mirrored axes alike until nothing changes; `false` if some do not factor.
    pub fn settle(&mut self) -> bool {
        loop {
            let before = self.vars.len();
            for (a, b) in self.mirrors.clone() {
                let (la, lb) = (self.leaves(a), self.leaves(b));
                let alike = la.len() == lb.len() && la.iter().zip(&lb).all(|(x, y)| self.dim(*x) == self.dim(*y));
                if !alike && self.pairs(la, lb).is_none() {
                    return false;
                }
            }
            if self.vars.len() == before {
                return true;
            }
        }
    }
}
