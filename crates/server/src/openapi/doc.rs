//! One documented route, and what becomes of it in the document.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use utoipa::openapi::path::{Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{
    ArrayBuilder, Content, ContentBuilder, HttpMethod, ObjectBuilder, PathItem, Ref, RefOr, Required, ResponseBuilder, Schema, Type,
};
use utoipa::{PartialSchema, ToSchema};

use crate::auth::Role;

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody, without a token.
    Anybody,
    /// Whoever has a token or a session.
    SignedIn,
    /// Those whose role includes this one.
    Role(Role),
}

/// A route of the public interface.
#[derive(Debug, Clone)]
pub struct RouteDoc {
    /// `GET` and so on.
    pub method: &'static str,
    /// The path as the router has it: `/api/v1/objects/{*path}`.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
    tag: &'static str,
    summary: &'static str,
    query: Vec<Query>,
    requests: Vec<Body>,
    status: u16,
    answers: Vec<Body>,
    errors: Vec<(u16, &'static str)>,
}

/// An optional parameter in the query.
#[derive(Debug, Clone, Copy)]
struct Query {
    name: &'static str,
    number: bool,
    about: &'static str,
}

/// A body: its media type and the schema, where it has one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Body {
    media: &'static str,
    shape: Shape,
    example: Option<Example>,
}

/// A body as it may be.
#[derive(Debug, Clone, Copy)]
pub struct Example {
    /// The body.
    pub json: &'static str,
    /// Reads it as the type that the document says it has.
    pub read: fn(&str) -> serde_json::Result<()>,
}

#[derive(Debug, Clone, Copy)]
enum Shape {
    Bytes,
    Text,
    One(Known),
    Many(Known),
}

/// A type that has a schema.
#[derive(Debug, Clone, Copy)]
struct Known {
    name: fn() -> Cow<'static, str>,
    schema: fn() -> RefOr<Schema>,
    parts: fn(&mut Vec<(String, RefOr<Schema>)>),
}

impl Known {
    fn of<T: ToSchema + PartialSchema>() -> Self {
        Self { name: T::name, schema: T::schema, parts: T::schemas }
    }

    fn reference(self) -> Ref {
        Ref::from_schema_name((self.name)())
    }
}

impl Body {
    /// JSON of a type.
    pub(super) fn json<T: ToSchema + PartialSchema>() -> Self {
        Self { media: "application/json", shape: Shape::One(Known::of::<T>()), example: None }
    }

    /// A JSON array of a type.
    pub(super) fn list<T: ToSchema + PartialSchema>() -> Self {
        Self { media: "application/json", shape: Shape::Many(Known::of::<T>()), example: None }
    }

    /// A stream of events, each with JSON of a type as its data.
    pub(super) fn events<T: ToSchema + PartialSchema>() -> Self {
        Self { media: "text/event-stream", shape: Shape::One(Known::of::<T>()), example: None }
    }

    /// Text of a media type.
    pub(super) const fn text(media: &'static str) -> Self {
        Self { media, shape: Shape::Text, example: None }
    }

    /// Any bytes.
    pub(super) const fn bytes() -> Self {
        Self::bytes_of("application/octet-stream")
    }

    /// Bytes of a media type.
    pub(super) const fn bytes_of(media: &'static str) -> Self {
        Self { media, shape: Shape::Bytes, example: None }
    }

    /// JSON of a type, with an example, which a test reads as that type.
    pub(super) fn such_as<T: ToSchema + PartialSchema + DeserializeOwned>(json: &'static str) -> Self {
        Self { example: Some(Example { json, read: |json| serde_json::from_str::<T>(json).map(drop) }), ..Self::json::<T>() }
    }

    fn content(self) -> Content {
        let example = self.example.and_then(|e| serde_json::from_str(e.json).ok());
        ContentBuilder::new().schema(Some(self.schema())).example(example).build()
    }

    fn schema(self) -> RefOr<Schema> {
        match self.shape {
            Shape::One(known) => known.reference().into(),
            Shape::Many(known) => ArrayBuilder::new().items(known.reference()).into(),
            Shape::Text => ObjectBuilder::new().schema_type(Type::String).into(),
            Shape::Bytes => ObjectBuilder::new()
                .schema_type(Type::String)
                .format(Some(utoipa::openapi::SchemaFormat::KnownFormat(utoipa::openapi::KnownFormat::Binary)))
                .into(),
        }
    }
}

impl RouteDoc {
    pub(super) const fn new(method: &'static str, path: &'static str, tag: &'static str, access: Access, summary: &'static str) -> Self {
        Self {
            method,
            path,
            access,
            tag,
            summary,
            query: Vec::new(),
            requests: Vec::new(),
            status: 200,
            answers: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// An optional text in the query.
    pub(super) fn query(mut self, name: &'static str, about: &'static str) -> Self {
        self.query.push(Query { name, number: false, about });
        self
    }

    /// An optional whole number in the query.
    pub(super) fn number(mut self, name: &'static str, about: &'static str) -> Self {
        self.query.push(Query { name, number: true, about });
        self
    }

    /// A body that it takes; several are alternatives by media type.
    pub(super) fn takes(mut self, body: Body) -> Self {
        self.requests.push(body);
        self
    }

    /// A body that it answers with; several are alternatives by media type.
    pub(super) fn gives(mut self, status: u16, body: Body) -> Self {
        self.status = status;
        self.answers.push(body);
        self
    }

    /// It answers with this status and nothing to read.
    pub(super) const fn empty(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// When it answers with this error. What holds for every route (401, 403, 429, 500, 503) is said once, for the whole document.
    pub(super) fn error(mut self, status: u16, when: &'static str) -> Self {
        self.errors.push((status, when));
        self
    }

    /// The examples of what it takes and gives.
    pub fn examples(&self) -> impl Iterator<Item = Example> + '_ {
        self.requests.iter().chain(&self.answers).filter_map(|body| body.example)
    }

    /// The path as OpenAPI writes it: without the star of a parameter that spans segments.
    pub fn openapi_path(&self) -> String {
        self.path.replace("{*", "{")
    }

    pub(super) fn schemas(&self, out: &mut Vec<(String, RefOr<Schema>)>) {
        for body in self.requests.iter().chain(&self.answers) {
            if let Shape::One(known) | Shape::Many(known) = body.shape {
                (known.parts)(out);
                out.push(((known.name)().into_owned(), (known.schema)()));
            }
        }
    }

    pub(super) fn path_item(&self) -> PathItem {
        let method = match self.method {
            "POST" => HttpMethod::Post,
            "PUT" => HttpMethod::Put,
            "PATCH" => HttpMethod::Patch,
            "DELETE" => HttpMethod::Delete,
            _ => HttpMethod::Get,
        };
        PathItem::new(method, self.operation())
    }

    fn operation(&self) -> Operation {
        let needs = match self.access {
            Access::Anybody => "Needs no token.".to_owned(),
            Access::SignedIn => "Needs a token of any role.".to_owned(),
            Access::Role(role) => format!("Needs the role `{role}`."),
        };
        let mut operation = OperationBuilder::new()
            .tag(self.tag)
            .summary(Some(self.summary))
            .description(Some(needs))
            .operation_id(Some(self.operation_id()))
            .parameters(Some(self.parameters()))
            .response(self.status.to_string(), self.answer())
            .response("default", Ref::from_response_name("Error"));
        for (status, when) in &self.errors {
            operation = operation.response(status.to_string(), refusal(when));
        }
        if self.access != Access::Anybody {
            let nothing: [&str; 0] = [];
            operation = operation.security(SecurityRequirement::new("token", nothing));
            operation = operation.security(SecurityRequirement::new("session", nothing));
        }
        if !self.requests.is_empty() {
            let mut request = RequestBodyBuilder::new().required(Some(Required::True));
            for body in &self.requests {
                request = request.content(body.media, body.content());
            }
            operation = operation.request_body(Some(request.build()));
        }
        operation.build()
    }

    fn answer(&self) -> ResponseBuilder {
        let about = match self.status {
            201 => "Made.",
            202 => "Accepted; it takes effect in a moment.",
            204 => "Done.",
            _ => "The answer.",
        };
        let mut response = ResponseBuilder::new().description(about);
        for body in &self.answers {
            response = response.content(body.media, body.content());
        }
        response
    }

    /// Unique, and good as a name in generated clients: `get_batch_jobs_id_tasks`.
    fn operation_id(&self) -> String {
        let path = self.path.trim_start_matches(tidemill_api::BASE);
        let words: Vec<&str> = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
        format!("{}_{}", self.method.to_ascii_lowercase(), words.join("_"))
    }

    fn parameters(&self) -> Vec<Parameter> {
        let names = self.path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
        let from_path = names.map(|name| {
            let (name, about) = match name.strip_prefix('*') {
                Some(name) => (name, Some("May hold slashes.")),
                None => (name, None),
            };
            parameter(name, ParameterIn::Path, matches!(name, "stage" | "task"), about)
        });
        let from_query = self.query.iter().map(|q| parameter(q.name, ParameterIn::Query, q.number, Some(q.about)));
        from_path.chain(from_query).collect()
    }
}

/// An error with what it means here.
fn refusal(when: &str) -> ResponseBuilder {
    let schema = Ref::from_schema_name(tidemill_api::ErrorEnvelope::name());
    ResponseBuilder::new().description(when).content("application/json", ContentBuilder::new().schema(Some(schema)).build())
}

fn parameter(name: &str, place: ParameterIn, number: bool, about: Option<&str>) -> Parameter {
    let kind = if number { Type::Integer } else { Type::String };
    let required = if place == ParameterIn::Path { Required::True } else { Required::False };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(required)
        .description(about)
        .schema(Some(ObjectBuilder::new().schema_type(kind)))
        .build()
}
