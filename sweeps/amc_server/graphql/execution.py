"""The part of W&B's GraphQL schema that sweeps need, and the execution of the client's own documents against it.

Field and argument names are the client's (wandb 0.31). What is not in the schema gets an error that names it. Fields
resolve to the attribute or method of the same name in snake case.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLError,
    GraphQLResolveInfo,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    OperationType,
    build_schema,
    execute_sync,
    get_operation_ast,
    parse,
    validate,
)
from graphql.validation import (
    NoUnusedFragmentsRule,
    NoUnusedVariablesRule,
    VariablesInAllowedPositionRule,
    specified_rules,
)

logger = logging.getLogger(__name__)

MAX_TOKENS = 10_000  # of a document; the client's largest has about 500

SCHEMA = build_schema(
    """
scalar JSON        # any value
scalar JSONString  # a JSON text
scalar Int64
scalar DateTime

type Query {
  viewer: User
  serverInfo: ServerInfo!
  entity(name: String): Entity
  project(name: String, entityName: String): Project
  model(name: String, entityName: String): Project
  models(entityName: String, after: String, first: Int): ProjectConnection!
  artifact(id: ID!): Artifact
}

type Mutation {
  upsertModel(input: UpsertModelInput!): UpsertModelPayload
  upsertSweep(input: UpsertSweepInput!): UpsertSweepPayload
  createAgent(input: CreateAgentInput!): CreateAgentPayload
  agentHeartbeat(input: AgentHeartbeatInput!): AgentHeartbeatPayload
  enqueueSweepRun(input: EnqueueSweepRunInput!): EnqueueSweepRunPayload
  upsertBucket(input: UpsertBucketInput!): UpsertBucketPayload
  stopRun(input: RunInput!): SuccessPayload
  deleteRun(input: DeleteRunInput!): DeleteRunPayload
  updateRunState(input: UpdateRunStateInput!): SuccessPayload
  createRunFiles(input: CreateRunFilesInput!): CreateRunFilesPayload
  markRunFilesUploaded(input: CreateRunFilesInput!): SuccessPayload
  deleteFiles(input: DeleteFilesInput!): SuccessPayload
  createArtifact(input: CreateArtifactInput!): CreateArtifactPayload
  createArtifactManifest(input: CreateArtifactManifestInput!): CreateArtifactManifestPayload
  createArtifactFiles(input: CreateArtifactFilesInput!): CreateArtifactFilesPayload
  commitArtifact(input: ArtifactInput!): ArtifactPayload
  useArtifact(input: UseArtifactInput!): ArtifactPayload
  updateArtifact(input: UpdateArtifactInput!): ArtifactPayload
  deleteArtifact(input: DeleteArtifactInput!): ArtifactPayload
  addAliases(input: AddAliasesInput!): SuccessPayload
  deleteAliases(input: DeleteAliasesInput!): SuccessPayload
}

type PageInfo { endCursor: String hasNextPage: Boolean! }

type User {
  id: ID! name: String! username: String email: String admin: Boolean flags: JSONString entity: String
  deletedAt: DateTime apiKeys: ApiKeyConnection teams: EntityConnection
}
type ApiKey { id: ID! name: String! description: String }
type ApiKeyConnection { edges: [ApiKeyEdge!]! }
type ApiKeyEdge { node: ApiKey }
type EntityConnection { edges: [EntityEdge!]! }
type EntityEdge { node: Entity }
type Entity { id: ID! name: String! organization: Organization xxhashDigestsEnabled: Boolean }
type Organization { name: String coreWeaveOrganizationId: String orgEntity: Entity }
type ServerInfo { features: [ServerFeature!]! }
type ServerFeature { name: String! isEnabled: Boolean! }

type ProjectConnection { edges: [ProjectEdge!]! pageInfo: PageInfo! }
type ProjectEdge { node: Project cursor: String! }
type Project {
  id: ID! internalId: String! name: String! entityName: String! entity: Entity! description: String access: String
  views: JSONString createdAt: DateTime! isBenchmark: Boolean! readOnly: Boolean user: User
  run(name: String!): Run
  bucket(name: String!, missingOk: Boolean): Run
  runs(filters: JSONString, after: String, first: Int, order: String): RunConnection!
  runCount(filters: JSONString): Int!
  sweep(sweepName: String!): Sweep
  sweeps(after: String, first: Int, filters: JSONString): SweepConnection!
  totalSweeps: Int!
  artifactType(name: String!): ArtifactType
  artifactTypes(after: String, first: Int): ArtifactTypeConnection!
  artifactCollection(name: String!): ArtifactCollection
  artifactCollectionMembership(name: String!): ArtifactCollectionMembership
  artifact(name: String!): Artifact
}

type SweepConnection { edges: [SweepEdge!]! pageInfo: PageInfo! }
type SweepEdge { node: Sweep cursor: String! }
type Sweep {
  id: ID! name: String! displayName: String method: String! state: String! description: String config: String!
  createdAt: DateTime! updatedAt: DateTime heartbeatAt: DateTime earlyStopJobRunning: Boolean bestLoss: Float
  controller: JSONString scheduler: JSONString controllerRunName: String runCount: Int! runCountExpected: Int
  project: Project!
  unknownFacts: [String!]!  # not W&B's, see Run
  runs(filters: JSONString, after: String, first: Int, order: String): RunConnection!
  agent(agentName: String!): Agent
  agents: AgentConnection!
}

type AgentConnection { edges: [AgentEdge!]! }
type AgentEdge { node: Agent! }
type Agent {
  id: ID! name: String! host: String! state: String totalRuns: Int! createdAt: DateTime! heartbeatAt: DateTime
  runs(after: String, before: String, first: Int, last: Int, order: String): RunConnection!
}

type RunConnection { edges: [RunEdge!]! pageInfo: PageInfo! }
type RunEdge { node: Run! cursor: String! }
type Run {
  id: ID! name: String! displayName: String projectId: String! project: Project! sweepName: String state: String!
  config: JSONString! summaryMetrics: JSONString! systemMetrics: JSONString! tags: [String!]! group: String
  jobType: String commit: String description: String notes: String host: String readOnly: Boolean user: User
  createdAt: DateTime! heartbeatAt: DateTime exitcode: Int
  shouldStop: Boolean! stopped: Boolean! failed: Boolean! running: Boolean!
  # Not W&B's: why the run was asked to end.
  stopReason: String stopBand: Int stopValue: Float stopThreshold: Float
  # Not W&B's: of an imported run, its state if it was alive then, and which fields its file lacked.
  stateWhenExported: String unknownFacts: [String!]!
  historyLineCount: Int! eventsLineCount: Int! logLineCount: Int! historyTail: JSONString! eventsTail: JSONString!
  wandbConfig(keys: [String!]): JSONString
  historyKeys: JSON
  history(samples: Int, minStep: Int64, maxStep: Int64): [JSONString!]!
  events(samples: Int): [JSONString!]!
  sampledHistory(specs: [JSONString!]!): [JSON!]!
  parquetHistory(liveKeys: [String!]!): ParquetHistory!
  logLines(first: Int, after: String, last: Int, useImprovedPagination: Boolean): LogLineConnection!
  fileCount: Int!
  files(names: [String], after: String, first: Int, pattern: String): FileConnection!
  outputArtifacts(after: String, first: Int): ArtifactConnection!
  inputArtifacts(after: String, first: Int): ArtifactConnection!
}
type ParquetHistory { parquetUrls: [String!]! liveData: [JSON!]! }

type LogLineConnection { edges: [LogLineEdge!]! pageInfo: PageInfo! }
type LogLineEdge { node: LogLine! cursor: String! }
type LogLine { number: Int! timestamp: String level: String label: String line: String! }

type FileConnection { edges: [FileEdge!]! pageInfo: PageInfo! totalCount: Int! }
type FileEdge { node: File! cursor: String! }
type File {
  id: ID! name: String! url(upload: Boolean): String directUrl: String sizeBytes: Int64 mimetype: String
  updatedAt: DateTime md5: String
  displayName: String storagePath: String digest: String uploadUrl: String uploadHeaders: [String!]!
  uploadMultipartUrls: UploadMultipartUrls artifact: Artifact
}
type UploadMultipartUrls { uploadID: ID! uploadUrlParts: [UploadUrlPart!]! }
type UploadUrlPart { partNumber: Int64! uploadUrl: String! }

# Of W&B's two kinds of collection there is one here: the versions of one name within a project.
interface ArtifactCollection {
  id: ID! name: String! description: String createdAt: DateTime! updatedAt: DateTime project: Project
  type: ArtifactType! tags: TagConnection!
  aliases(after: String, first: Int): ArtifactAliasConnection!
  artifacts(after: String, first: Int, order: String, filters: JSONString): VersionedArtifactConnection!
  artifactMembership(aliasName: String!): ArtifactCollectionMembership
}
type ArtifactSequence implements ArtifactCollection {
  id: ID! name: String! description: String createdAt: DateTime! updatedAt: DateTime project: Project
  type: ArtifactType! tags: TagConnection!
  aliases(after: String, first: Int): ArtifactAliasConnection!
  artifacts(after: String, first: Int, order: String, filters: JSONString): VersionedArtifactConnection!
  artifactMembership(aliasName: String!): ArtifactCollectionMembership
  latestArtifact: Artifact digestAlgorithm: ArtifactDigestAlgorithm!
}
enum ArtifactDigestAlgorithm { MANIFEST_MD5 MANIFEST_XXH128 }
enum ArtifactState { COMMITTED DELETED PENDING }
enum ArtifactManifestType { FULL INCREMENTAL PATCH }
enum ArtifactStorageLayout { V1 V2 }
type ArtifactType {
  id: ID! name: String! description: String createdAt: DateTime!
  artifactCollection(name: String!): ArtifactCollection
  artifactCollections(after: String, first: Int): ArtifactCollectionConnection!
}
type ArtifactTypeConnection { edges: [ArtifactTypeEdge!]! pageInfo: PageInfo! totalCount: Int! }
type ArtifactTypeEdge { node: ArtifactType cursor: String! }
type ArtifactCollectionConnection { edges: [ArtifactCollectionEdge!]! pageInfo: PageInfo! totalCount: Int! }
type ArtifactCollectionEdge { node: ArtifactCollection cursor: String! }
type ArtifactCollectionMembership {
  id: ID! versionIndex: Int createdAt: DateTime! aliases: [ArtifactAlias!]! artifactCollection: ArtifactCollection
  artifact: Artifact
  files(names: [String!], after: String, first: Int): FileConnection!
}
type ArtifactAlias { id: ID! alias: String! artifactCollection: ArtifactCollection }
type ArtifactAliasConnection { edges: [ArtifactAliasEdge!]! pageInfo: PageInfo! }
type ArtifactAliasEdge { node: ArtifactAlias cursor: String! }
type Tag { id: ID! name: String! }
type TagConnection { edges: [TagEdge!]! }
type TagEdge { node: Tag! }
type ArtifactConnection { edges: [ArtifactEdge!]! pageInfo: PageInfo! totalCount: Int! }
type ArtifactEdge { node: Artifact cursor: String! }
type VersionedArtifactConnection { edges: [VersionedArtifactEdge!]! pageInfo: PageInfo! totalCount: Int! }
type VersionedArtifactEdge { node: Artifact! cursor: String! version: String! }
type ArtifactManifest { id: ID! file: File! }
union ArtifactCreator = Run | User
type Artifact {
  id: ID! artifactSequence: ArtifactSequence! versionIndex: Int artifactType: ArtifactType! description: String
  metadata: JSONString ttlDurationSeconds: Int64! ttlIsInherited: Boolean! tags: [Tag!]! historyStep: Int64
  state: ArtifactState! size: Int64! digest: String! digestAlgorithm: ArtifactDigestAlgorithm! commitHash: String
  fileCount: Int! createdAt: DateTime! updatedAt: DateTime aliases: [ArtifactAlias!]! currentManifest: ArtifactManifest
  createdBy: ArtifactCreator usedBy: RunConnection!
  files(names: [String!], after: String, first: Int): FileConnection!
}

input ArtifactAliasInput { artifactCollectionName: String! alias: String! }
input TagInput { tagName: String! tagCategoryName: String attributes: JSONString }
input CreateArtifactInput {
  entityName: String! projectName: String! artifactTypeName: String! artifactCollectionName: String
  artifactCollectionNames: [String!] runName: String digest: String! digestAlgorithm: ArtifactDigestAlgorithm
  description: String aliases: [ArtifactAliasInput!] tags: [TagInput!] metadata: JSONString ttlDurationSeconds: Int64
  historyStep: Int64 enableDigestDeduplication: Boolean distributedID: String clientID: ID sequenceClientID: ID
  storageRegion: String labels: JSONString clientMutationId: String
}
type CreateArtifactPayload { artifact: Artifact! }
input CreateArtifactManifestInput {
  artifactID: ID! baseArtifactID: ID name: String! digest: String! entityName: String! projectName: String!
  runName: String! type: ArtifactManifestType
}
type CreateArtifactManifestPayload { artifactManifest: ArtifactManifest! }
input UploadPartsInput { partNumber: Int64! hexMD5: String! }
input CreateArtifactFileSpecInput {
  artifactID: ID! name: String! md5: String! digest: String mimetype: String artifactManifestID: ID
  uploadPartsInput: [UploadPartsInput!]
}
input CreateArtifactFilesInput {
  artifactFiles: [CreateArtifactFileSpecInput!]! storageLayout: ArtifactStorageLayout
  digestAlgorithm: ArtifactDigestAlgorithm cloudRegionID: ID clientMutationId: String
}
type CreateArtifactFilesPayload { files: FileConnection! }
input ArtifactInput { artifactID: ID! }
input UseArtifactInput {
  artifactID: ID! entityName: String! projectName: String! runName: String! usedAs: String
  artifactEntityName: String artifactProjectName: String clientMutationId: String
}
input UpdateArtifactInput {
  artifactID: ID! description: String metadata: JSONString ttlDurationSeconds: Int64 tagsToAdd: [TagInput!]
  tagsToDelete: [TagInput!] aliases: [ArtifactAliasInput!] labels: JSONString clientMutationId: String
}
input DeleteArtifactInput { artifactID: ID! deleteAliases: Boolean clientMutationId: String }
type ArtifactPayload { artifact: Artifact! }
input ArtifactCollectionAliasInput {
  artifactCollectionName: String! alias: String! entityName: String projectName: String
}
input AddAliasesInput { artifactID: ID! aliases: [ArtifactCollectionAliasInput!]! clientMutationId: String }
input DeleteAliasesInput { artifactID: ID! aliases: [ArtifactCollectionAliasInput!]! clientMutationId: String }

input UpsertModelInput {
  id: String name: String entityName: String description: String framework: String access: String views: JSONString
  clientMutationId: String
}
type UpsertModelPayload { project: Project model: Project inserted: Boolean }

input UpsertSweepInput {
  id: ID config: String description: String entityName: String projectName: String controller: JSONString
  launchScheduler: JSONString templateVariableValues: JSONString scheduler: JSONString state: String
  priorRunsFilters: JSONString displayName: String
}
type UpsertSweepPayload { sweep: Sweep configValidationWarnings: [String!]! }

input CreateAgentInput { host: String! projectName: String entityName: String sweep: String! }
type CreateAgentPayload { agent: Agent }

input AgentHeartbeatInput { id: ID! metrics: JSONString runState: JSONString }
type AgentHeartbeatPayload { agent: Agent commands: JSONString! }

input EnqueueSweepRunInput { id: ID! config: JSONString! displayName: String }
type EnqueueSweepRunPayload { id: String! runQueueItemId: ID }

input UpsertBucketInput {
  id: String name: String groupName: String modelName: String entityName: String description: String
  displayName: String notes: String config: JSONString commit: String host: String debug: Boolean jobProgram: String
  jobRepo: String jobType: String state: String sweep: String tags: [String!] summaryMetrics: JSONString
}
type UpsertBucketPayload { bucket: Run inserted: Boolean }

input RunInput { id: ID! }
input DeleteRunInput { id: ID! deleteArtifacts: Boolean }
type DeleteRunPayload { clientMutationId: String }
input UpdateRunStateInput { id: ID! state: String! }
type SuccessPayload { success: Boolean! }

input CreateRunFilesInput { entityName: String projectName: String! runName: String! files: [String!]! }
type CreateRunFilesPayload { runID: ID uploadHeaders: [String!]! files: [UploadFile!]! }
type UploadFile { name: String! uploadUrl: String }

input DeleteFilesInput { files: [ID!]! projectId: Int }
"""
)

# The client declares one variable as String here and as ID there, and sends some that it does not use.
_RULES = tuple(
    rule
    for rule in specified_rules
    if rule not in (VariablesInAllowedPositionRule, NoUnusedVariablesRule, NoUnusedFragmentsRule)
)


def snake_case(name: str) -> str:
    """Return camelCase as snake_case: ``runID`` -> ``run_id``."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


@lru_cache(maxsize=512)
def _checked(text: str) -> tuple[DocumentNode, tuple[GraphQLError, ...]]:
    document = parse(text, max_tokens=MAX_TOKENS)
    return document, tuple(validate(SCHEMA, document, _RULES))


def prepare(text: str, operation_name: str | None) -> tuple[DocumentNode, OperationDefinitionNode]:
    """Return a document and the operation that is meant; the client sends the same few documents again and again.

    Raises:
        UnknownError: when it is not GraphQL, has several operations, or asks for what is not in the schema.
    """
    try:
        document, errors = _checked(text)
    except (GraphQLSyntaxError, RecursionError) as error:
        raise UnknownError([f"not a GraphQL document: {getattr(error, 'message', 'nested too deeply')}"]) from error
    if errors:
        raise UnknownError([error.message for error in errors])
    operation = get_operation_ast(document, operation_name)
    if operation is None:
        raise UnknownError([f"the document has no operation {operation_name or 'to run'}"])
    return document, operation


class UnknownError(Exception):
    """A document that this server cannot execute."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__("; ".join(messages))
        self.messages = messages


def is_mutation(operation: OperationDefinitionNode) -> bool:
    """Return whether the operation may change something."""
    return operation.operation is OperationType.MUTATION


def execute(
    document: DocumentNode, operation_name: str | None, variables: Mapping[str, Any], root: object
) -> ExecutionResult:
    """Run a prepared document, its fields resolved on ``root`` and what it returns."""
    return execute_sync(
        SCHEMA,
        document,
        root_value=root,
        variable_values=dict(variables),
        operation_name=operation_name,
        field_resolver=_resolve,
    )


def _resolve(source: Any, info: GraphQLResolveInfo[Any], **arguments: Any) -> Any:
    name = snake_case(info.field_name)
    value = source[name] if isinstance(source, Mapping) else getattr(source, name)
    return value(**{snake_case(key): argument for key, argument in arguments.items()}) if callable(value) else value
