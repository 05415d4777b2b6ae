//! Puts the switches of mutants into a source file.
//!
//! Every place that can be changed becomes an expression that equals the original unless one of its
//! mutants is on. Operands are evaluated once and in order, so the original behaves as before.

mod expressions;
mod matches;

use crate::facts::{Facts, is_named};
use proc_macro2::{Literal, TokenStream};
use quote::{ToTokens, quote};
use std::collections::{BTreeMap, BTreeSet};
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{
    Attribute, Block, Expr, FieldValue, File, GenericArgument, ImplItemFn, Item, ItemFn, ItemImpl,
    Pat, PathArguments, ReturnType, Signature, Stmt, Type, parse_quote,
};

/// Characters of an expression that become part of a mutant's name.
const NAME_WIDTH: usize = 72;

/// A place and a change to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    /// Number of its switch.
    pub(crate) id: u32,
    /// Name made of the place and the change, without a line number: edits elsewhere do not change
    /// it.
    pub(crate) name: String,
}

/// Instruments the files of one crate, one after the other.
pub(crate) struct Instrumenter<'a> {
    facts: &'a Facts,
    /// Names of points to leave out, because they do not compile.
    disabled: &'a BTreeSet<String>,
    /// All points, including those that are left out.
    points: Vec<Point>,
    ordinals: BTreeMap<String, u32>,
    file: String,
    scope: Vec<String>,
}

/// Truth values that may replace an expression, so that no change is made twice.
#[derive(Clone, Copy, Default)]
struct Wanted {
    always: bool,
    never: bool,
    opposite: bool,
}

impl Wanted {
    const NOTHING: Wanted = Wanted { always: false, never: false, opposite: false };
    const VALUES: Wanted = Wanted { always: true, never: true, opposite: false };
    const ALL: Wanted = Wanted { always: true, never: true, opposite: true };
    const ALWAYS: Wanted = Wanted { always: true, never: false, opposite: false };
    const NEVER: Wanted = Wanted { always: false, never: true, opposite: false };
    const OPPOSITE: Wanted = Wanted { always: false, never: false, opposite: true };
}

/// The source text of a node on one line.
fn text_of(node: &impl Spanned) -> String {
    let text = node.span().source_text().unwrap_or_default();
    let text = text.trim_end_matches(';');
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `code` with a note of the mutants that change it; only the code where there are none.
fn wrapped(ids: &[Option<Literal>], code: Expr) -> Expr {
    let ids: Vec<_> = ids.iter().flatten().collect();
    if ids.is_empty() { code } else { parse_quote!(crate::mutants::w!(#(#ids)*, #code)) }
}

/// The switch of a point, or a switch that is never on.
fn switch(id: Option<&Literal>) -> TokenStream {
    id.map_or_else(|| quote!(crate::mutants::NEVER), ToTokens::to_token_stream)
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let text = attribute.to_token_stream().to_string();
        attribute.path().is_ident("test")
            || (attribute.path().is_ident("cfg") && (text.contains("test") || text.contains('=')))
    })
}

impl<'a> Instrumenter<'a> {
    pub(crate) fn new(facts: &'a Facts, disabled: &'a BTreeSet<String>) -> Instrumenter<'a> {
        Instrumenter {
            facts,
            disabled,
            points: Vec::new(),
            ordinals: BTreeMap::new(),
            file: String::new(),
            scope: Vec::new(),
        }
    }

    /// The instrumented text of the file `file` with the name `name`.
    pub(crate) fn instrument(&mut self, name: &str, mut file: File) -> String {
        self.file = name.to_owned();
        self.visit_file_mut(&mut file);
        file.into_token_stream().to_string()
    }

    pub(crate) fn into_points(self) -> Vec<Point> {
        self.points
    }

    /// A point that makes the change `change` to `text`; `None` if it is left out.
    fn point(&mut self, text: &str, change: &str) -> Option<Literal> {
        let mut short: String = text.chars().take(NAME_WIDTH).collect();
        if short.len() < text.len() {
            short.push('…');
        }
        let scope = self.scope.join("::");
        let mut name = format!("{} {scope}: {short} => {change}", self.file);
        let ordinal = self.ordinals.entry(name.clone()).or_insert(0);
        *ordinal += 1;
        if *ordinal > 1 {
            name = format!("{name} #{ordinal}");
        }
        let id = self.points.len() as u32 + 1;
        let enabled = !self.disabled.contains(&name);
        self.points.push(Point { id, name });
        enabled.then(|| Literal::u32_unsuffixed(id))
    }

    /// Makes it possible to replace `expr`, whose original text is `text`, by true or false.
    fn truth(&mut self, expr: &mut Expr, text: &str, wanted: Wanted) {
        let mut id = |wanted, change| if wanted { self.point(text, change) } else { None };
        let always = id(wanted.always, "true");
        let never = id(wanted.never, "false");
        let opposite = id(wanted.opposite, "not");
        let ids = [always, never, opposite];
        if ids.iter().all(Option::is_none) {
            return;
        }
        let [always, never, opposite] = ids.each_ref().map(|id| switch(id.as_ref()));
        let code = parse_quote!(crate::mutants::condition(#always, #never, #opposite, #expr));
        *expr = wrapped(&ids, code);
    }

    /// Makes it possible to leave out `expr`, which has no value.
    fn removable(&mut self, expr: &mut Expr, text: &str) {
        if let Some(id) = self.point(text, "nothing") {
            let code = parse_quote!(if !crate::mutants::on(#id) { #expr });
            *expr = wrapped(&[Some(id)], code);
        }
    }

    fn function(&mut self, attributes: &[Attribute], signature: &Signature, body: &mut Block) {
        // Code that the compiler evaluates has no switches.
        if is_test(attributes) || signature.constness.is_some() {
            return;
        }
        self.scope.push(signature.ident.to_string());
        let returns = match &signature.output {
            ReturnType::Default => None,
            ReturnType::Type(_, of) => Some(of.as_ref().clone()),
        };
        let values = if body.stmts.is_empty() { Vec::new() } else { defaults(returns.as_ref()) };
        let ids: Vec<_> = values
            .into_iter()
            .map(|value| (self.point("body", &label(&value)), value))
            .filter_map(|(id, value)| id.map(|id| (id, value)))
            .collect();
        let single = body.stmts.len() == 1;
        if returns.is_some_and(|of| is_named(&of, "bool")) {
            let wanted = if single { Wanted::OPPOSITE } else { Wanted::ALL };
            self.block(body, Some(wanted));
        } else {
            self.block(body, None);
        }
        for (id, value) in ids {
            body.stmts.insert(
                0,
                parse_quote!(
                    crate::mutants::w!(#id, if crate::mutants::on(#id) { return #value });
                ),
            );
        }
        self.scope.pop();
    }

    /// Instruments the statements of a block; `wanted` is for its value, if that is a truth value.
    fn block(&mut self, block: &mut Block, wanted: Option<Wanted>) {
        let last = block.stmts.len().saturating_sub(1);
        let mut statements = Vec::new();
        for (at, mut statement) in std::mem::take(&mut block.stmts).into_iter().enumerate() {
            match (&mut statement, wanted) {
                (Stmt::Expr(tail, None), Some(wanted)) if at == last => self.expr(tail, wanted),
                _ => self.statement(&mut statement, &mut statements),
            }
            // An expression that ended with its brace is now a macro call.
            if let (Stmt::Expr(Expr::Macro(_), semicolon @ None), true) =
                (&mut statement, at < last)
            {
                *semicolon = Some(Default::default());
            }
            statements.push(statement);
        }
        block.stmts = statements;
    }

    /// Instruments a statement, and adds the code that must come before it to `before`.
    fn statement(&mut self, statement: &mut Stmt, before: &mut Vec<Stmt>) {
        let text = text_of(statement);
        match statement {
            Stmt::Local(local) if is_test(&local.attrs) => {}
            Stmt::Expr(expr @ (Expr::Call(_) | Expr::MethodCall(_) | Expr::Try(_)), Some(_)) => {
                let known = self.is_unit_call(expr);
                self.visit_expr_mut(expr);
                if !known {
                    let code = parse_quote!({ #expr; });
                    *expr = code;
                    self.removable(expr, &text);
                }
            }
            Stmt::Local(local) => {
                let Some(init) = &mut local.init else { return };
                self.visit_expr_mut(&mut init.expr);
                let Some((_, otherwise)) = &mut init.diverge else { return };
                self.visit_expr_mut(otherwise);
                let pattern = text_of(&local.pat);
                if let Some(id) = self.point(&format!("let {pattern} else"), "else") {
                    before.push(parse_quote!(
                        crate::mutants::w!(#id, if crate::mutants::on(#id) #otherwise);
                    ));
                }
            }
            other => visit_mut::visit_stmt_mut(self, other),
        }
    }

    /// The last name of a called function, if it has one.
    fn is_unit_call(&self, expr: &Expr) -> bool {
        match expr {
            Expr::MethodCall(call) => self.facts.is_unit_function(&call.method),
            Expr::Call(call) => match call.func.as_ref() {
                Expr::Path(path) => {
                    path.path.segments.last().is_some_and(|s| self.facts.is_unit_function(&s.ident))
                }
                _ => false,
            },
            _ => false,
        }
    }
}

/// Values that a function of this type may return in place of its result.
fn defaults(returns: Option<&Type>) -> Vec<Expr> {
    let Some(returns) = returns else { return vec![parse_quote!(())] };
    let Type::Path(path) = returns else { return Vec::new() };
    let Some(last) = path.path.segments.last() else { return Vec::new() };
    match last.ident.to_string().as_str() {
        "bool" => vec![parse_quote!(true), parse_quote!(false)],
        "u8" | "u16" | "u32" | "u64" | "usize" => vec![parse_quote!(0), parse_quote!(1)],
        "Option" => vec![parse_quote!(None)],
        "Vec" => vec![parse_quote!(Vec::new())],
        "Instant" | "Duration" => vec![parse_quote!(Default::default())],
        "Result" if is_unit_result(&last.arguments) => vec![parse_quote!(Ok(()))],
        _ => Vec::new(),
    }
}

fn is_unit_result(arguments: &PathArguments) -> bool {
    let PathArguments::AngleBracketed(arguments) = arguments else { return false };
    match arguments.args.first() {
        Some(GenericArgument::Type(Type::Tuple(t))) => t.elems.is_empty(),
        _ => false,
    }
}

fn label(value: &Expr) -> String {
    value.to_token_stream().to_string().replace(' ', "")
}

impl VisitMut for Instrumenter<'_> {
    fn visit_item_mut(&mut self, item: &mut Item) {
        match item {
            Item::Fn(ItemFn { attrs, sig, block, .. }) => self.function(attrs, sig, block),
            Item::Impl(item) if !is_test(&item.attrs) => self.visit_item_impl_mut(item),
            Item::Mod(item) if !is_test(&item.attrs) => {
                self.scope.push(item.ident.to_string());
                visit_mut::visit_item_mod_mut(self, item);
                self.scope.pop();
            }
            _ => {}
        }
    }

    fn visit_item_impl_mut(&mut self, item: &mut ItemImpl) {
        let of = item.self_ty.to_token_stream().to_string().replace(' ', "");
        let scope = match &item.trait_ {
            Some((_, of_trait, _)) => {
                let name = of_trait.segments.last().map(|s| s.ident.to_string());
                format!("<{of} as {}>", name.unwrap_or_default())
            }
            None => of,
        };
        self.scope.push(scope);
        visit_mut::visit_item_impl_mut(self, item);
        self.scope.pop();
    }

    fn visit_impl_item_fn_mut(&mut self, function: &mut ImplItemFn) {
        self.function(&function.attrs, &function.sig, &mut function.block);
    }

    fn visit_block_mut(&mut self, block: &mut Block) {
        self.block(block, None);
    }

    fn visit_expr_mut(&mut self, expr: &mut Expr) {
        let wanted = if self.is_boolean(expr) { Wanted::VALUES } else { Wanted::NOTHING };
        self.expr(expr, wanted);
    }

    fn visit_field_value_mut(&mut self, field: &mut FieldValue) {
        if !is_test(&field.attrs) {
            self.visit_expr_mut(&mut field.expr);
        }
    }

    // Patterns, types and attributes contain constants, which have no switches.
    fn visit_pat_mut(&mut self, _: &mut Pat) {}
    fn visit_type_mut(&mut self, _: &mut Type) {}
    fn visit_attribute_mut(&mut self, _: &mut Attribute) {}
    fn visit_path_arguments_mut(&mut self, _: &mut PathArguments) {}
}
