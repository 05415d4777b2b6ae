//! Changes in `match` and `matches!`.

use super::{Instrumenter, switch, text_of, wrapped};
use proc_macro2::Literal;
use quote::{format_ident, quote};
use syn::parse::{Parse, ParseStream};
use syn::visit_mut::{self, VisitMut};
use syn::{Arm, Expr, ExprMacro, ExprMatch, FieldPat, Pat, Token, UnOp, parse_quote};

/// Methods with another result when they are called twice.
const TAKES: &[&str] = &["next", "pop", "pop_back", "pop_front", "take"];

/// The arguments of `matches!`.
struct Matches {
    scrutinee: Expr,
    pattern: Pat,
    guard: Option<Expr>,
}

impl Parse for Matches {
    fn parse(input: ParseStream<'_>) -> syn::Result<Matches> {
        let scrutinee = input.parse()?;
        input.parse::<Token![,]>()?;
        let pattern = Pat::parse_multi_with_leading_vert(input)?;
        let guard = if input.parse::<Option<Token![if]>>()?.is_some() {
            Some(input.parse()?)
        } else {
            None
        };
        input.parse::<Option<Token![,]>>()?;
        Ok(Matches { scrutinee, pattern, guard })
    }
}

/// Whether evaluating it a second time changes nothing.
fn is_stable(expr: &Expr) -> bool {
    match expr {
        Expr::Path(_) | Expr::Lit(_) => true,
        Expr::Field(field) => is_stable(&field.base),
        Expr::Paren(paren) => is_stable(&paren.expr),
        Expr::Reference(reference) => reference.mutability.is_none() && is_stable(&reference.expr),
        Expr::Unary(unary) => matches!(unary.op, UnOp::Deref(_)) && is_stable(&unary.expr),
        Expr::Index(index) => is_stable(&index.expr) && is_stable(&index.index),
        Expr::Tuple(tuple) => tuple.elems.iter().all(is_stable),
        Expr::MethodCall(call) => {
            let method = call.method.to_string();
            call.args.is_empty() && !TAKES.contains(&method.as_str()) && is_stable(&call.receiver)
        }
        _ => false,
    }
}

/// A borrow of the value that a `match` examines.
fn borrowed(scrutinee: &Expr) -> Expr {
    match scrutinee {
        Expr::Tuple(tuple) => {
            let parts = tuple.elems.iter();
            parse_quote!((#(&(#parts),)*))
        }
        other => parse_quote!(&(#other)),
    }
}

/// Whether an arm matches everything that is left.
fn takes_all(arm: &Arm) -> bool {
    arm.guard.is_none()
        && match &arm.pat {
            Pat::Wild(_) => true,
            Pat::Ident(name) => {
                name.subpat.is_none() && name.ident.to_string().starts_with(char::is_lowercase)
            }
            _ => false,
        }
}

/// Removes the names from a pattern.
struct Nameless;

impl VisitMut for Nameless {
    fn visit_field_pat_mut(&mut self, field: &mut FieldPat) {
        if field.colon_token.is_none() {
            field.colon_token = Some(Default::default());
            *field.pat = parse_quote!(_);
        }
        visit_mut::visit_field_pat_mut(self, field);
    }

    fn visit_pat_mut(&mut self, pat: &mut Pat) {
        visit_mut::visit_pat_mut(self, pat);
        let Pat::Ident(name) = pat else { return };
        *pat = match name.subpat.take() {
            Some((_, of)) => *of,
            None if name.ident.to_string().starts_with(char::is_lowercase) => parse_quote!(_),
            None => return,
        };
    }
}

/// Leaves only one alternative in list number `at` of the alternatives of a pattern.
struct Only {
    at: usize,
    alternative: usize,
}

impl VisitMut for Only {
    fn visit_pat_mut(&mut self, pat: &mut Pat) {
        if let Pat::Or(or) = pat {
            if self.at == 0 {
                self.at = usize::MAX;
                let kept = or.cases.iter().nth(self.alternative).cloned();
                if let Some(kept) = kept {
                    *pat = parse_quote!((#kept));
                }
                return;
            }
            self.at -= 1;
        }
        visit_mut::visit_pat_mut(self, pat);
    }
}

/// The numbers of alternatives of all lists in a pattern, with their texts.
#[derive(Default)]
struct Alternatives(Vec<Vec<String>>);

impl VisitMut for Alternatives {
    fn visit_pat_mut(&mut self, pat: &mut Pat) {
        if let Pat::Or(or) = pat {
            self.0.push(or.cases.iter().map(text_of).collect());
        }
        visit_mut::visit_pat_mut(self, pat);
    }
}

impl Instrumenter<'_> {
    /// Points that leave out one alternative of `pattern`, each with the pattern of that
    /// alternative.
    fn alternatives(&mut self, pattern: &Pat) -> Vec<(Literal, Pat)> {
        let mut lists = Alternatives::default();
        lists.visit_pat_mut(&mut pattern.clone());
        let whole = text_of(pattern);
        let mut left_out = Vec::new();
        for (at, list) in lists.0.iter().enumerate() {
            for (alternative, text) in list.iter().enumerate() {
                let Some(id) = self.point(&whole, &format!("without {text}")) else { continue };
                let mut pattern = pattern.clone();
                Only { at, alternative }.visit_pat_mut(&mut pattern);
                Nameless.visit_pat_mut(&mut pattern);
                left_out.push((id, pattern));
            }
        }
        left_out
    }

    /// Instruments the arms of a `match`: their guards, and the arms themselves if another one
    /// takes over.
    pub(super) fn match_arms(&mut self, of_match: &mut ExprMatch) -> Option<Expr> {
        let has_rest = of_match.arms.last().is_some_and(takes_all);
        let stable = is_stable(&of_match.expr);
        let looked_at = borrowed(&of_match.expr);
        self.visit_expr_mut(&mut of_match.expr);
        let last = of_match.arms.len().saturating_sub(1);
        let (mut ids, mut looks) = (Vec::new(), Vec::new());
        for (at, arm) in of_match.arms.iter_mut().enumerate() {
            let mut guards: Vec<Expr> = Vec::new();
            if has_rest && at < last {
                if arm.guard.is_none() {
                    if let Some(id) = self.point(&text_of(&arm.pat), "no arm") {
                        guards
                            .push(parse_quote!(crate::mutants::w!(#id, !crate::mutants::on(#id))));
                    }
                }
                let left_out = if stable { self.alternatives(&arm.pat) } else { Vec::new() };
                for (id, pattern) in left_out {
                    let name = format_ident!("without_{}", id.to_string());
                    looks.push(quote!(let #name = crate::mutants::w!(
                        #id, crate::mutants::on(#id) && matches!(#looked_at, #pattern)
                    );));
                    guards.push(parse_quote!(crate::mutants::w!(#id, !#name)));
                    ids.push(Some(id));
                }
            }
            if let Some((_, guard)) = &mut arm.guard {
                self.condition(guard);
                guards.push(parse_quote!((#guard)));
            }
            if !guards.is_empty() {
                let guard: Expr = parse_quote!(#(#guards)&&*);
                arm.guard = Some((Default::default(), Box::new(guard)));
            }
            self.visit_expr_mut(&mut arm.body);
        }
        if looks.is_empty() {
            return None;
        }
        let code = parse_quote!({ #(#looks)* #of_match });
        Some(wrapped(&ids, code))
    }

    /// Instruments the guard and the alternatives of `matches!`.
    pub(super) fn matches_macro(&mut self, of_macro: &mut ExprMacro) {
        if !of_macro.mac.path.is_ident("matches") {
            return;
        }
        let Ok(mut parts) = of_macro.mac.parse_body::<Matches>() else { return };
        let stable = is_stable(&parts.scrutinee);
        let looked_at = borrowed(&parts.scrutinee);
        self.visit_expr_mut(&mut parts.scrutinee);
        let left_out = if stable { self.alternatives(&parts.pattern) } else { Vec::new() };
        let mut guards: Vec<Expr> = Vec::new();
        for (id, pattern) in left_out {
            let id = switch(Some(&id));
            guards.push(parse_quote!(crate::mutants::w!(
                #id, !(crate::mutants::on(#id) && matches!(#looked_at, #pattern))
            )));
        }
        if let Some(guard) = &mut parts.guard {
            self.condition(guard);
            guards.push(parse_quote!((#guard)));
        }
        let Matches { scrutinee, pattern, .. } = &parts;
        of_macro.mac.tokens = if guards.is_empty() {
            quote!(#scrutinee, #pattern)
        } else {
            quote!(#scrutinee, #pattern if #(#guards)&&*)
        };
    }
}
