//! What the user wrote: an `impl` with marked methods. Everything that is wrong with it is found here, and pointed at.

use proc_macro2::{Group, TokenStream, TokenTree};
use quote::ToTokens;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, Expr, ExprLit, FnArg, GenericArgument, Ident, ImplItem, ImplItemFn, ItemImpl, Lit,
    LitInt, LitStr, Meta, Pat, PathArguments, Result, ReturnType, Type, TypePath, Visibility,
};

/// The names of methods that every handle has, of its own or by traits that are always in scope.
const TAKEN: [&str; 14] = [
    "clone",
    "command",
    "id",
    "idempotency_key",
    "if_active",
    "into",
    "query",
    "rate_limit",
    "retries",
    "stale_ok",
    "timeout",
    "to_owned",
    "try_into",
    "watch",
];
/// The longest name of an agent type, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// Arguments that a method may have at most.
const ARGUMENTS_MAX: usize = 11;

/// An agent as the user wrote it.
pub(crate) struct Model {
    /// The `impl`, without the marks.
    pub(crate) item: ItemImpl,
    /// The name of the type.
    pub(crate) agent: Ident,
    /// The name under which the cluster knows it.
    pub(crate) name: LitStr,
    pub(crate) version: Option<LitInt>,
    pub(crate) version_min: Option<LitInt>,
    pub(crate) changes_retained: Option<LitInt>,
    /// Whether the state has a function `migrate`.
    pub(crate) migrates: bool,
    /// Whether it has a function `write_as`.
    pub(crate) writes_as: bool,
    /// Whether it has a function `changes_retained`.
    pub(crate) retains_by_version: bool,
    pub(crate) commands: Vec<Method>,
    pub(crate) queries: Vec<Method>,
    pub(crate) timeout: Option<Method>,
    /// That of what is generated: the widest of all marked methods.
    pub(crate) visibility: Visibility,
}

/// A marked method.
pub(crate) struct Method {
    pub(crate) docs: Vec<Attribute>,
    pub(crate) name: Ident,
    /// The name of its variant.
    pub(crate) variant: Ident,
    /// The number of its variant on the wire; a timeout has none.
    pub(crate) tag: u32,
    /// The earliest version of the agent that has it.
    pub(crate) since: u32,
    pub(crate) takes_context: bool,
    pub(crate) arguments: Vec<(Ident, Type)>,
    /// What it gives.
    pub(crate) output: Type,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Command,
    Query,
    Timeout,
}

impl Kind {
    fn of(attribute: &Attribute) -> Option<Self> {
        let path = attribute.path();
        if path.is_ident("command") {
            Some(Self::Command)
        } else if path.is_ident("query") {
            Some(Self::Query)
        } else if path.is_ident("timeout") {
            Some(Self::Timeout)
        } else {
            None
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Query => "query",
            Self::Timeout => "timeout",
        }
    }

    fn context(self) -> &'static str {
        if self == Self::Query { "QueryContext" } else { "AgentContext" }
    }
}

impl Model {
    pub(crate) fn parse(options: TokenStream, mut item: ItemImpl) -> Result<Self> {
        if let Some((_, path, _)) = &item.trait_ {
            return Err(Error::new(path.span(), "#[agent] goes on a plain impl, not on that of a trait"));
        }
        if !item.generics.params.is_empty() {
            return Err(Error::new(item.generics.span(), "an agent type cannot be generic"));
        }
        let agent = match &*item.self_ty {
            Type::Path(TypePath { qself: None, path }) => path.get_ident().cloned(),
            _ => None,
        };
        let agent =
            agent.ok_or_else(|| Error::new(item.self_ty.span(), "an agent type is named by one word"))?;
        let Options { name, version, version_min, changes_retained } = Options::parse(options)?;
        let newest = version.as_ref().map_or(Ok(0), LitInt::base10_parse)?;
        let mut model = Self {
            agent,
            name,
            version,
            version_min,
            changes_retained,
            migrates: false,
            writes_as: false,
            retains_by_version: false,
            commands: Vec::new(),
            queries: Vec::new(),
            timeout: None,
            visibility: Visibility::Inherited,
            item: item.clone(),
        };
        for inner in &mut item.items {
            if let ImplItem::Fn(function) = inner {
                model.take(function, newest)?;
            }
        }
        if model.commands.is_empty() {
            let message =
                "an agent needs a method marked #[command(tag = ..)]: its first command activates it";
            return Err(Error::new(item.self_ty.span(), message));
        }
        model.item = item;
        Ok(model)
    }

    /// Takes a method in, if it is marked, and its mark off.
    fn take(&mut self, function: &mut ImplItemFn, newest: u32) -> Result<()> {
        self.migrates |= function.sig.ident == "migrate";
        self.writes_as |= function.sig.ident == "write_as";
        self.retains_by_version |= function.sig.ident == "changes_retained";
        let marks: Vec<_> =
            function.attrs.iter().filter_map(|mark| Some((Kind::of(mark)?, mark.clone()))).collect();
        let [(kind, mark)] = &marks[..] else {
            return match marks.get(1) {
                Some((_, second)) => {
                    Err(Error::new(second.span(), "a method is one of command, query and timeout"))
                }
                None => Ok(()),
            };
        };
        let method = Method::parse(*kind, mark, function, &self.agent)?;
        if method.since > newest {
            let message = format!("it would never be sent: the agent's version is {newest}");
            return Err(Error::new(mark.span(), message));
        }
        function.attrs.retain(|attribute| Kind::of(attribute).is_none());
        let is_wider = match self.visibility {
            Visibility::Inherited => true,
            Visibility::Restricted(_) => matches!(function.vis, Visibility::Public(_)),
            Visibility::Public(_) => false,
        };
        if is_wider {
            self.visibility = function.vis.clone();
        }
        let known = match kind {
            Kind::Command => &mut self.commands,
            Kind::Query => &mut self.queries,
            Kind::Timeout if self.timeout.is_some() => {
                return Err(Error::new(mark.span(), "an agent has one method marked #[timeout]"));
            }
            Kind::Timeout => {
                self.timeout = Some(method);
                return Ok(());
            }
        };
        if let Some(twin) = known.iter().find(|known| known.tag == method.tag) {
            let message = format!("tag {} is that of `{}` already", method.tag, twin.name);
            return Err(Error::new(mark.span(), message));
        }
        if let Some(twin) = known.iter().find(|known| known.variant == method.variant) {
            let message =
                format!("its variant would be named `{}`, as that of `{}`", twin.variant, twin.name);
            return Err(Error::new(method.name.span(), message));
        }
        known.push(method);
        Ok(())
    }
}

/// What the attribute says.
struct Options {
    name: LitStr,
    version: Option<LitInt>,
    version_min: Option<LitInt>,
    changes_retained: Option<LitInt>,
}

impl Options {
    fn parse(options: TokenStream) -> Result<Self> {
        let (mut name, mut version, mut version_min, mut changes_retained) = (None, None, None, None);
        let number = |option: &syn::meta::ParseNestedMeta<'_>| {
            let value: LitInt = option.value()?.parse()?;
            value.base10_parse::<u32>()?;
            Ok::<_, Error>(value)
        };
        let parser = syn::meta::parser(|option| {
            let is_twice = if option.path.is_ident("name") {
                name.replace(type_name(option.value()?.parse()?)?).is_some()
            } else if option.path.is_ident("version") {
                version.replace(number(&option)?).is_some()
            } else if option.path.is_ident("version_min") {
                version_min.replace(number(&option)?).is_some()
            } else if option.path.is_ident("changes_retained") {
                changes_retained.replace(number(&option)?).is_some()
            } else {
                let known = "the options of #[agent] are name = \"..\", version = .., version_min = .. and \
                             changes_retained = ..";
                return Err(option.error(known));
            };
            if is_twice { Err(option.error("it was said before")) } else { Ok(()) }
        });
        parser.parse2(options)?;
        let name = name.ok_or_else(|| {
            let message = "an agent type needs a name that never changes: #[agent(name = \"..\")]";
            Error::new(proc_macro2::Span::call_site(), message)
        })?;
        Ok(Self { name, version, version_min, changes_retained })
    }
}

/// A name that an agent type can have.
fn type_name(name: LitStr) -> Result<LitStr> {
    let (text, wrong) = (name.value(), |message| Err(Error::new(name.span(), message)));
    match text.len() {
        0 => wrong("the name of an agent type is not empty".to_owned()),
        bytes if bytes > NAME_BYTES_MAX => {
            wrong(format!("the name of an agent type has at most {NAME_BYTES_MAX} bytes, not {bytes}"))
        }
        _ if text.chars().any(char::is_control) => {
            wrong("the name of an agent type holds no control characters".to_owned())
        }
        _ => Ok(name),
    }
}

/// The name of a method's variant: its words in one, and something before it where that alone could be no name.
fn variant(method: &Ident) -> Ident {
    let words = method.to_string();
    let words = words.trim_start_matches("r#").split('_').map(|word| {
        let mut letters = word.chars();
        letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
    });
    let name = words.collect::<String>();
    let is_name = name != "Self" && !name.is_empty() && !name.starts_with(char::is_numeric);
    Ident::new(&if is_name { name } else { format!("Method{name}") }, method.span())
}

/// A type of the user's as it is called outside of his `impl`: there `Self` is something else.
fn named_type(of: &Type, agent: &Ident) -> Result<Type> {
    syn::parse2(without_self(of.to_token_stream(), agent))
}

fn without_self(tokens: TokenStream, agent: &Ident) -> TokenStream {
    let named = |token: TokenTree| match token {
        TokenTree::Ident(word) if word == "Self" => Ident::new(&agent.to_string(), word.span()).into(),
        TokenTree::Group(group) => {
            let mut inner = Group::new(group.delimiter(), without_self(group.stream(), agent));
            inner.set_span(group.span());
            inner.into()
        }
        token => token,
    };
    tokens.into_iter().map(named).collect()
}

impl Method {
    fn parse(kind: Kind, mark: &Attribute, function: &ImplItemFn, agent: &Ident) -> Result<Self> {
        let signature = &function.sig;
        if let Some(token) = &signature.asyncness {
            return Err(Error::new(token.span(), "a handler is pure: it cannot be async"));
        }
        if let Some(token) = &signature.unsafety {
            return Err(Error::new(token.span(), "a handler cannot be unsafe"));
        }
        if let Some(cfg) = function.attrs.iter().find(|attribute| attribute.path().is_ident("cfg")) {
            let message = "every node has the same handlers, whatever it was built for: no #[cfg]";
            return Err(Error::new(cfg.span(), message));
        }
        if !signature.generics.params.is_empty() {
            return Err(Error::new(signature.generics.span(), "a handler cannot be generic"));
        }
        if kind != Kind::Timeout && TAKEN.contains(&signature.ident.to_string().as_str()) {
            let message = format!("every handle has a method `{}` of its own", signature.ident);
            return Err(Error::new(signature.ident.span(), message));
        }
        let mut inputs = signature.inputs.iter().peekable();
        let receiver = match inputs.next() {
            Some(FnArg::Receiver(receiver)) if receiver.reference.is_some() => receiver,
            other => {
                let wanted = if kind == Kind::Query { "&self" } else { "&mut self" };
                let place = other.map_or_else(|| signature.ident.span(), Spanned::span);
                return Err(Error::new(place, format!("a {} begins with {wanted}", kind.name())));
            }
        };
        if kind == Kind::Query && receiver.mutability.is_some() {
            return Err(Error::new(receiver.span(), "a query reads the agent: it begins with &self"));
        }
        let takes_context = inputs.peek().is_some_and(|argument| is_context(argument, kind));
        if takes_context {
            inputs.next();
        }
        let arguments = inputs.map(|input| argument(input, agent)).collect::<Result<Vec<_>>>()?;
        let docs = function.attrs.iter().filter(|attribute| attribute.path().is_ident("doc"));
        let output = match &signature.output {
            ReturnType::Default => syn::parse_quote!(()),
            ReturnType::Type(_, output) => named_type(output, agent)?,
        };
        check_owned(&output)?;
        if kind == Kind::Timeout && (!arguments.is_empty() || signature.output != ReturnType::Default) {
            let message = "a timeout takes the context and nothing else, and gives nothing";
            return Err(Error::new(signature.inputs.span(), message));
        }
        if arguments.len() > ARGUMENTS_MAX {
            let message = format!("a handler takes at most {ARGUMENTS_MAX} arguments");
            return Err(Error::new(signature.inputs.span(), message));
        }
        let (tag, since) = match (kind, &mark.meta) {
            (Kind::Timeout, Meta::Path(_)) => (0, 0),
            (Kind::Timeout, _) => return Err(Error::new(mark.span(), "a timeout has no options")),
            _ => tag(kind, mark)?,
        };
        Ok(Self {
            docs: docs.cloned().collect(),
            name: signature.ident.clone(),
            variant: variant(&signature.ident),
            tag,
            since,
            takes_context,
            arguments,
            output,
        })
    }
}

/// The explicit tag of a mark, and the version since which there is such a command.
fn tag(kind: Kind, mark: &Attribute) -> Result<(u32, u32)> {
    let wrong = |place| {
        let name = kind.name();
        Error::new(place, format!("a {name} needs a tag that never changes: #[{name}(tag = 1)]"))
    };
    let Meta::List(_) = &mark.meta else { return Err(wrong(mark.span())) };
    let options = Punctuated::<syn::MetaNameValue, syn::Token![,]>::parse_terminated;
    let options = mark.parse_args_with(options).map_err(|_| wrong(mark.span()))?;
    let (mut tag, mut since) = (None, None);
    for option in options {
        let is_twice = match &option.value {
            Expr::Lit(ExprLit { lit: Lit::Int(value), .. }) if option.path.is_ident("tag") => {
                tag.replace(value.base10_parse()?).is_some()
            }
            Expr::Lit(ExprLit { lit: Lit::Int(value), .. })
                if option.path.is_ident("since") && kind == Kind::Command =>
            {
                since.replace(value.base10_parse()?).is_some()
            }
            _ => return Err(wrong(option.span())),
        };
        if is_twice {
            return Err(Error::new(option.span(), "it was said before"));
        }
    }
    Ok((tag.ok_or_else(|| wrong(mark.span()))?, since.unwrap_or(0)))
}

/// Whether an argument is the context of a handler: a reference to a type of that name.
fn is_context(argument: &FnArg, kind: Kind) -> bool {
    let FnArg::Typed(argument) = argument else { return false };
    let Type::Reference(reference) = &*argument.ty else { return false };
    let Type::Path(path) = &*reference.elem else { return false };
    path.path.segments.last().is_some_and(|segment| segment.ident == kind.context())
}

fn argument(argument: &FnArg, agent: &Ident) -> Result<(Ident, Type)> {
    let FnArg::Typed(argument) = argument else {
        return Err(Error::new(argument.span(), "self comes first"));
    };
    let Pat::Ident(name) = &*argument.pat else {
        return Err(Error::new(argument.pat.span(), "an argument of a handler has a plain name"));
    };
    check_owned(&argument.ty)?;
    Ok((name.ident.clone(), named_type(&argument.ty, agent)?))
}

/// What travels through the log owns itself.
fn check_owned(kind: &Type) -> Result<()> {
    match kind {
        Type::Reference(reference) => {
            let message = "it travels between nodes, so it must own itself: no references";
            Err(Error::new(reference.span(), message))
        }
        Type::ImplTrait(_) | Type::TraitObject(_) => {
            Err(Error::new(kind.span(), "it travels between nodes, so its type must be named"))
        }
        Type::Array(array) => check_owned(&array.elem),
        Type::Paren(inner) => check_owned(&inner.elem),
        Type::Group(inner) => check_owned(&inner.elem),
        Type::Path(path) => {
            for segment in &path.path.segments {
                if let PathArguments::AngleBracketed(inner) = &segment.arguments {
                    for argument in &inner.args {
                        if let GenericArgument::Type(inner) = argument {
                            check_owned(inner)?;
                        }
                    }
                }
            }
            Ok(())
        }
        Type::Tuple(tuple) => tuple.elems.iter().try_for_each(check_owned),
        _ => Ok(()),
    }
}
