//! Changes in expressions.

use super::{Instrumenter, Wanted, switch, text_of, wrapped};
use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::{ToTokens, format_ident, quote};
use syn::visit_mut::{self, VisitMut};
use syn::{
    BinOp, Expr, ExprBinary, ExprClosure, ExprForLoop, ExprIf, ExprLit, ExprMacro, ExprMethodCall,
    ExprWhile, Lit, LitInt, Member, UnOp, parse_quote,
};

/// Methods whose closure is a condition.
const TAKES_CONDITION: &[&str] = &[
    "all",
    "any",
    "filter",
    "find",
    "is_none_or",
    "is_some_and",
    "partition",
    "position",
    "retain",
    "rposition",
    "skip_while",
    "take_while",
];
/// Methods that replace each other.
const SWAPPED: &[(&str, &str)] = &[
    ("all", "any"),
    ("first", "last"),
    ("max", "min"),
    ("max_by_key", "min_by_key"),
    ("is_some_and", "is_none_or"),
];

/// Whether this calls a macro that is false in a build without broken rules.
fn is_broken_rule(expr: &Expr) -> bool {
    match expr {
        Expr::Macro(ExprMacro { mac, .. }) => mac.path.is_ident("broken"),
        Expr::Unary(unary) => matches!(unary.op, UnOp::Not(_)) && is_broken_rule(&unary.expr),
        _ => false,
    }
}

/// Whether a condition binds names.
fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

/// Whether it is a literal, or, by its spelling, a variant of an enum or a constant.
fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Lit(_) => true,
        Expr::Path(path) => path.path.segments.last().is_some_and(|segment| {
            segment.ident.to_string().starts_with(|first: char| first.is_uppercase())
        }),
        _ => false,
    }
}

/// Other operators for a comparison. Together with true and false they represent all other
/// operators in its place.
fn other_comparisons(op: &BinOp) -> &'static [&'static str] {
    match op {
        BinOp::Lt(_) => &["<=", "!=", ">="],
        BinOp::Le(_) => &["<", "==", ">"],
        BinOp::Gt(_) => &[">=", "!=", "<="],
        BinOp::Ge(_) => &[">", "==", "<"],
        BinOp::Eq(_) => &["!="],
        BinOp::Ne(_) => &["=="],
        _ => &[],
    }
}

fn other_arithmetic(op: &BinOp) -> Option<&'static str> {
    Some(match op {
        BinOp::Add(_) => "-",
        BinOp::Sub(_) => "+",
        BinOp::Mul(_) => "/",
        BinOp::Div(_) => "*",
        BinOp::Rem(_) => "/",
        BinOp::BitAnd(_) => "|",
        BinOp::BitOr(_) => "&",
        BinOp::BitXor(_) => "&",
        BinOp::Shl(_) => ">>",
        BinOp::Shr(_) => "<<",
        _ => return None,
    })
}

/// The operation that replaces a compound assignment.
fn other_assignments(op: &BinOp) -> Option<&'static str> {
    Some(match op {
        BinOp::AddAssign(_) => "-=",
        BinOp::SubAssign(_) => "+=",
        BinOp::MulAssign(_) => "/=",
        BinOp::DivAssign(_) => "*=",
        BinOp::BitAndAssign(_) | BinOp::BitOrAssign(_) => "=",
        _ => return None,
    })
}

fn operator(text: &str) -> TokenStream {
    text.parse().unwrap_or_default()
}

impl Instrumenter<'_> {
    /// Whether an expression is a truth value, as far as names show it.
    pub(super) fn is_boolean(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Binary(binary) => {
                matches!(binary.op, BinOp::And(_) | BinOp::Or(_)) && !has_let(expr)
                    || !other_comparisons(&binary.op).is_empty()
            }
            Expr::Unary(unary) => matches!(unary.op, UnOp::Not(_)) && self.is_boolean(&unary.expr),
            Expr::MethodCall(call) => self.facts.is_boolean_function(&call.method),
            Expr::Call(call) => match call.func.as_ref() {
                Expr::Path(path) => path
                    .path
                    .segments
                    .last()
                    .is_some_and(|segment| self.facts.is_boolean_function(&segment.ident)),
                _ => false,
            },
            Expr::Field(field) => match &field.member {
                Member::Named(name) => self.facts.is_boolean_field(name),
                Member::Unnamed(_) => false,
            },
            Expr::Macro(ExprMacro { mac, .. }) => mac.path.is_ident("matches"),
            Expr::Paren(paren) => self.is_boolean(&paren.expr),
            _ => false,
        }
    }

    /// Instruments an expression; `wanted` has the truth values that may replace it.
    pub(super) fn expr(&mut self, expr: &mut Expr, wanted: Wanted) {
        let text = text_of(expr);
        let known_unit = self.is_unit_call(expr);
        match expr {
            Expr::Paren(paren) => return self.expr(&mut paren.expr, wanted),
            _ if is_broken_rule(expr) => return,
            Expr::Binary(_) => self.binary(expr, &text, wanted),
            Expr::Unary(unary) if matches!(unary.op, UnOp::Not(_)) => {
                self.expr(&mut unary.expr, Wanted::NOTHING);
                self.truth(expr, &text, wanted);
            }
            Expr::Lit(lit) => {
                if let Some(code) = self.literal(lit, &text) {
                    *expr = code;
                }
            }
            Expr::Assign(assign) => {
                visit_mut::visit_expr_mut(self, &mut assign.left);
                self.visit_expr_mut(&mut assign.right);
                self.removable(expr, &text);
            }
            Expr::MethodCall(call) => {
                let code = self.method_call(call, &text);
                if let Some(code) = code {
                    *expr = code;
                }
                self.truth(expr, &text, wanted);
            }
            Expr::Call(call) => {
                visit_mut::visit_expr_call_mut(self, call);
                let is_some =
                    matches!(call.func.as_ref(), Expr::Path(p) if p.path.is_ident("Some"));
                if let Some(id) = is_some.then(|| self.point(&text, "None")).flatten() {
                    let code = parse_quote!(if crate::mutants::on(#id) { None } else { #expr });
                    *expr = wrapped(&[Some(id)], code);
                }
                self.truth(expr, &text, wanted);
            }
            Expr::Macro(of_macro) => {
                self.matches_macro(of_macro);
                self.truth(expr, &text, wanted);
            }
            Expr::Field(_) => {
                visit_mut::visit_expr_mut(self, expr);
                self.truth(expr, &text, wanted);
            }
            Expr::Path(_) => self.path(expr, &text, wanted),
            _ => self.control(expr, &text, wanted),
        }
        if known_unit {
            self.removable(expr, &text);
        }
    }

    /// Instruments expressions that control the flow.
    fn control(&mut self, expr: &mut Expr, text: &str, wanted: Wanted) {
        match expr {
            Expr::If(of_if) => self.branch(of_if),
            Expr::While(ExprWhile { cond, body, .. }) => {
                self.condition(cond);
                self.visit_block_mut(body);
            }
            Expr::ForLoop(ExprForLoop { expr: over, body, .. }) => {
                let head = format!("for … in {}", text_of(over));
                self.visit_expr_mut(over);
                self.visit_block_mut(body);
                self.removable(expr, &head);
            }
            Expr::Match(of_match) => {
                if let Some(code) = self.match_arms(of_match) {
                    *expr = code;
                }
            }
            Expr::Repeat(repeat) => self.visit_expr_mut(&mut repeat.expr),
            Expr::Let(of_let) => self.visit_expr_mut(&mut of_let.expr),
            Expr::Block(block) => self.block(&mut block.block, None),
            Expr::Const(_) => {}
            // A place that is changed stays that place.
            Expr::Reference(reference) if reference.mutability.is_some() => {
                visit_mut::visit_expr_mut(self, &mut reference.expr);
            }
            other => {
                visit_mut::visit_expr_mut(self, other);
                self.truth(other, text, wanted);
            }
        }
    }

    fn branch(&mut self, of_if: &mut ExprIf) {
        if is_broken_rule(&of_if.cond) {
            // A build without broken rules has only one of the branches.
            let is_kept = matches!(of_if.cond.as_ref(), Expr::Unary(_));
            if is_kept {
                self.visit_block_mut(&mut of_if.then_branch);
            } else if let Some((_, otherwise)) = &mut of_if.else_branch {
                self.visit_expr_mut(otherwise);
            }
            return;
        }
        self.condition(&mut of_if.cond);
        self.visit_block_mut(&mut of_if.then_branch);
        if let Some((_, otherwise)) = &mut of_if.else_branch {
            self.visit_expr_mut(otherwise);
        }
    }

    /// Instruments the condition of an `if`, a `while`, a guard or a closure.
    pub(super) fn condition(&mut self, expr: &mut Expr) {
        let text = text_of(expr);
        if !has_let(expr) {
            return self.expr(expr, Wanted::ALL);
        }
        self.chain(expr);
        if let Some(id) = self.point(&text, "false") {
            *expr = parse_quote!(crate::mutants::w!(#id, !crate::mutants::on(#id)) && #expr);
        }
    }

    /// Instruments a condition that binds names: its parts stay where they are.
    fn chain(&mut self, expr: &mut Expr) {
        match expr {
            Expr::Binary(binary) if has_let(&binary.left) || has_let(&binary.right) => {
                self.chain(&mut binary.left);
                self.chain(&mut binary.right);
            }
            Expr::Let(of_let) => self.visit_expr_mut(&mut of_let.expr),
            other => self.expr(other, Wanted::ALWAYS),
        }
    }

    fn binary(&mut self, expr: &mut Expr, text: &str, wanted: Wanted) {
        let Expr::Binary(binary) = expr else { return };
        match binary.op {
            BinOp::And(_) | BinOp::Or(_) => {
                let code = self.logic(binary, text);
                *expr = code;
                self.truth(expr, text, wanted);
            }
            _ if !other_comparisons(&binary.op).is_empty() => {
                let code = self.comparison(binary, text);
                *expr = code;
                self.truth(expr, text, Wanted { opposite: false, ..wanted });
            }
            _ if other_arithmetic(&binary.op).is_some() => {
                visit_mut::visit_expr_binary_mut(self, binary);
                if let Some(code) = self.arithmetic(binary, text) {
                    *expr = code;
                }
            }
            _ => {
                visit_mut::visit_expr_mut(self, &mut binary.left);
                self.visit_expr_mut(&mut binary.right);
                if let Some(code) = self.compound_assignment(binary, text) {
                    *expr = code;
                }
            }
        }
    }

    /// Instruments `&&` and `||`. The new names must not occur in the source. The second operand is
    /// evaluated where the first one does not decide.
    fn logic(&mut self, binary: &mut ExprBinary, text: &str) -> Expr {
        let (other, wanted) = match binary.op {
            BinOp::And(_) => ("||", Wanted::ALWAYS),
            _ => ("&&", Wanted::NEVER),
        };
        let trivial = is_broken_rule(&binary.left) || is_broken_rule(&binary.right);
        self.expr(&mut binary.left, wanted);
        self.expr(&mut binary.right, wanted);
        let id = if trivial { None } else { self.point(text, other) };
        let Some(id) = id else { return Expr::Binary(binary.clone()) };
        let (left, right) = (&binary.left, &binary.right);
        let goes_on = match binary.op {
            BinOp::And(_) => quote!(first_operand != crate::mutants::on(#id)),
            _ => quote!(first_operand == crate::mutants::on(#id)),
        };
        let code = parse_quote!({
            let first_operand: bool = #left;
            if #goes_on { #right } else { first_operand }
        });
        wrapped(&[Some(id)], code)
    }

    fn comparison(&mut self, binary: &mut ExprBinary, text: &str) -> Expr {
        let constant = is_constant(&binary.left) || is_constant(&binary.right);
        let mut others = other_comparisons(&binary.op).to_vec();
        // Values that are compared for equality mostly have no order.
        if matches!(binary.op, BinOp::Eq(_)) && !constant {
            others.extend(["<=", ">="]);
        }
        self.visit_expr_mut(&mut binary.left);
        self.visit_expr_mut(&mut binary.right);
        let (left, right) = (&binary.left, &binary.right);
        let operands = quote!((&(#left), &(#right)));
        self.one_of(operands, text, &binary.op, &others, &quote!(*))
            .unwrap_or_else(|| Expr::Binary(binary.clone()))
    }

    fn arithmetic(&mut self, binary: &ExprBinary, text: &str) -> Option<Expr> {
        let other = other_arithmetic(&binary.op)?;
        let (left, right) = (&binary.left, &binary.right);
        self.one_of(quote!((#left, #right)), text, &binary.op, &[other], &quote!())
    }

    /// The operation on `operands`, or one of `others` in its place.
    fn one_of(
        &mut self,
        operands: TokenStream,
        text: &str,
        op: &BinOp,
        others: &[&str],
        deref: &TokenStream,
    ) -> Option<Expr> {
        let ids: Vec<_> = others.iter().map(|other| self.point(text, other)).collect();
        if ids.iter().all(Option::is_none) {
            return None;
        }
        let choices = ids.iter().zip(others).filter_map(|(id, other)| {
            let (id, other) = (id.as_ref()?, operator(other));
            // Each of them may be the one that does not compile.
            let changed =
                quote!(crate::mutants::w!(#id, #deref left_operand #other #deref right_operand));
            Some(quote!(if crate::mutants::on(#id) { #changed } else))
        });
        let code = parse_quote!(match #operands {
            (left_operand, right_operand) => #(#choices)* {
                #deref left_operand #op #deref right_operand
            }
        });
        Some(wrapped(&ids, code))
    }

    fn compound_assignment(&mut self, binary: &ExprBinary, text: &str) -> Option<Expr> {
        let other = other_assignments(&binary.op)?;
        let (nothing, id) = (self.point(text, "nothing"), self.point(text, other));
        let ids = [nothing, id];
        let [nothing, on] = ids.each_ref().map(|id| switch(id.as_ref()));
        let (target, value, op, other) = (&binary.left, &binary.right, &binary.op, operator(other));
        let changed = ids[1]
            .is_some()
            .then(|| quote!(else if crate::mutants::on(#on) { #target #other new_operand; }));
        let code = parse_quote!({
            let new_operand = #value;
            if crate::mutants::on(#nothing) {} #changed else { #target #op new_operand; }
        });
        Some(wrapped(&ids, code))
    }

    fn literal(&mut self, lit: &ExprLit, text: &str) -> Option<Expr> {
        match &lit.lit {
            Lit::Bool(value) => {
                let id = self.point(text, if value.value { "false" } else { "true" })?;
                let code = parse_quote!(#value != crate::mutants::on(#id));
                Some(wrapped(&[Some(id)], code))
            }
            Lit::Int(value) => {
                let number = value.base10_parse::<u128>().ok()?;
                let more = self.point(text, "+ 1");
                let less = if number > 0 { self.point(text, "- 1") } else { None };
                let nearby = |number: u128| {
                    LitInt::new(&format!("{number}{}", value.suffix()), Span::call_site())
                };
                let above = nearby(number + 1);
                let mut choices = TokenStream::new();
                if let Some(id) = &more {
                    choices.extend(quote!(if crate::mutants::on(#id) { #above } else));
                }
                if let Some(id) = &less {
                    let below = nearby(number - 1);
                    choices.extend(quote!(if crate::mutants::on(#id) { #below } else));
                }
                if choices.is_empty() {
                    return None;
                }
                Some(wrapped(&[more, less], parse_quote!(#choices { #value })))
            }
            _ => None,
        }
    }

    fn method_call(&mut self, call: &mut ExprMethodCall, text: &str) -> Option<Expr> {
        self.visit_expr_mut(&mut call.receiver);
        let method = call.method.to_string();
        let takes_condition = TAKES_CONDITION.contains(&method.as_str());
        for argument in &mut call.args {
            match argument {
                Expr::Closure(ExprClosure { body, .. }) if takes_condition => self.condition(body),
                other => self.visit_expr_mut(other),
            }
        }
        let pair = SWAPPED.iter().find(|(one, two)| method == *one || method == *two)?;
        let other = if method == pair.0 { pair.1 } else { pair.0 };
        let id = self.point(text, &format!("{other}()"))?;
        Some(wrapped(&[Some(id.clone())], swapped(call, &id, &format_ident!("{other}"))))
    }

    fn path(&mut self, expr: &mut Expr, text: &str, wanted: Wanted) {
        if wanted.always || wanted.never || wanted.opposite {
            return self.truth(expr, text, wanted);
        }
        let other = match text {
            "Mode::Exclusive" => quote!(Mode::Shared),
            "Mode::Shared" => quote!(Mode::Exclusive),
            _ => return,
        };
        let change = other.to_string().replace(' ', "");
        if let Some(id) = self.point(text, &change) {
            let code = parse_quote!(if crate::mutants::on(#id) { #other } else { #expr });
            *expr = wrapped(&[Some(id)], code);
        }
    }
}

/// The call, or a call of `other` on the same value. Closures cannot be moved here, so the code is
/// there twice.
fn swapped(call: &ExprMethodCall, id: &Literal, other: &Ident) -> Expr {
    let mut changed = call.clone();
    changed.method = other.clone();
    let (call, changed) = (call.to_token_stream(), changed.to_token_stream());
    parse_quote!(if crate::mutants::on(#id) { #changed } else { #call })
}
