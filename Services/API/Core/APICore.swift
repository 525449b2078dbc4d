import Contracts
import Kit

/// What an edge of `api` tells its core.
enum APINotice: Codable, Sendable {
    /// The operator's token that the suite was made with: known by its hash.
    case operatorKey(hash: String)
    case tokenCreated(TokenRow)
    case tokenRevoked(name: String)
    case sessionOpened(SessionRow)
    case sessionClosed(hash: String)
    case repository(RepositoryRequested)
    case deploy(DeployRequested)
    case rollback(RollbackRequested)
    /// Something refused that matters to security.
    case refused(action: String, object: String, why: String)
}

/// `api` does nothing in the world but say so in the log. (`Never` would do, were it not for warnings about unreachable code.)
struct NoEffect: Codable, Hashable, Sendable {}

/// Tokens, sessions, orders on behalf of people, and the read model. It has no effects: whatever it decides is an event.
enum APICore: Core {
    typealias State = APIState
    typealias Effect = NoEffect
    typealias Notice = APINotice

    static let filters = [
        "repository.*", "git.**", "run.*", "job.*", "release.*", "deploy.*", "rollback.*", "instance.*", "route.*", "host.*",
        "component.*",
    ]

    static func handle(_ input: Input<APINotice>, _ state: inout APIState, _ step: inout Step<NoEffect>) {
        switch input {
        case .event(let envelope):
            ReadModel.take(envelope, &state, now: step.now)
            state.marks["log"] = String(max(envelope.seq, state.position))
        case .notice(let notice): take(notice, &state, &step)
        case .timer: sweep(&state, &step)
        }
    }

    private static func take(_ notice: APINotice, _ state: inout APIState, _ step: inout Step<NoEffect>) {
        switch notice {
        case .operatorKey(let hash):
            step.wake("sweep", after: 3600)
            guard state.marks["operator"] != hash else { return }
            // Another key than before: the keys directory was made anew, so what the old one opened is void.
            if let old = state.marks["operator"] { state.tokens[old] = nil }
            state.marks["operator"] = hash
            state.tokens[hash] = TokenRow(name: "admin", hash: hash, role: .admin, createdAt: step.now, createdBy: "slipway up")
            step.publish(AuditRecorded(action: "token.create", object: "admin", outcome: "done"), cause: nil, actor: "slipway up")
            step.log("the operator's token is in force")

        case .tokenCreated(let row):
            // The edge reads back whose row it is: of two requests for one name the first wins.
            guard !state.tokens.values.contains(where: { $0.name == row.name }) else { return }
            state.tokens[row.hash] = row
            step.publish(AuditRecorded(action: "token.create", object: row.name, outcome: "done"))

        case .tokenRevoked(let name):
            for row in Tokens.family(of: name, in: state.tokens.values) {
                state.tokens[row.hash] = nil
                for session in state.sessions.values where session.token == row.hash { state.sessions[session.hash] = nil }
                step.publish(AuditRecorded(action: "token.revoke", object: row.name, outcome: "done"))
            }

        case .sessionOpened(let row): state.sessions[row.hash] = row
        case .sessionClosed(let hash): state.sessions[hash] = nil

        case .repository(let order):
            step.publish(order)
            step.publish(AuditRecorded(action: "app.\(order.action.rawValue)", object: order.app.text, outcome: "ordered"))
        case .deploy(let order):
            let id = step.publish(order)
            note(id, DeployRequested.type, order.app, order.environment, order.release, &state, step)
            step.publish(AuditRecorded(action: "deploy", object: order.subject, outcome: "ordered"))
        case .rollback(let order):
            let id = step.publish(order)
            note(id, RollbackRequested.type, order.app, order.environment, order.to, &state, step)
            step.publish(AuditRecorded(action: "rollback", object: order.subject, outcome: "ordered"))

        case .refused(let action, let object, let why):
            step.publish(AuditRecorded(action: action, object: object, outcome: "refused: \(why)"))
        }
    }

    private static func note(
        _ id: EventID, _ type: EventType, _ app: AppName, _ environment: EnvName?, _ release: Int?, _ state: inout APIState,
        _ step: Step<NoEffect>
    ) {
        guard state.orders[id.text] == nil else { return }
        state.orders[id.text] = OrderRow(
            id: id, type: type.text, app: app, environment: environment, release: release, by: step.actor, at: step.now, seq: 0)
    }

    /// Forgets sessions that are over, and tokens a week after they expired (until then the list shows them as expired).
    private static func sweep(_ state: inout APIState, _ step: inout Step<NoEffect>) {
        for row in state.sessions.values where row.expires <= step.now { state.sessions[row.hash] = nil }
        for row in state.tokens.values {
            if let expires = row.expires, expires.adding(seconds: 7 * 86_400) <= step.now { state.tokens[row.hash] = nil }
        }
        step.wake("sweep", after: 3600)
    }
}
