// The C++ kit: what a program needs to be a Tidemill engine, in one header of plain C++17 without dependencies.
//
//     #include "tidemill_engine.hpp"
//
//     int main() {
//         tidemill::Engine engine("discounting", "1.0");
//         engine.function("discount", [](const tidemill::Session& session) -> tidemill::Run {
//             const double rate = std::stod(session.data);             // once a session: kept warm
//             return [rate](const tidemill::Call& call) {               // once a task
//                 return std::to_string(std::exp(-rate * std::stod(std::string(call.payload))));
//             };
//         });
//         return engine.serve();
//     }
//
// An exception fails its task and no other. Standard output goes to standard error, which the host keeps as the log; standard input is
// empty. The protocol is described in docs/reference/engine-protocol.md; this is version 1 of it, for little-endian machines of the
// POSIX kind.

#ifndef TIDEMILL_ENGINE_HPP
#define TIDEMILL_ENGINE_HPP

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <fcntl.h>
#include <functional>
#include <map>
#include <mutex>
#include <poll.h>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <typeinfo>
#include <unistd.h>
#include <utility>
#include <vector>

#if defined(__GNUG__)
#include <cxxabi.h>
#endif

namespace tidemill {

// A folder of static data, read-only.
struct Package {
    std::string name, version, path;
};

// A session that is being opened, as its function sees it.
struct Session {
    std::string data;                              // set-up data, empty if there is none
    std::map<std::string, std::string> parameters; // free for user and engine to agree on
    std::string engine, scratch;                   // the engine's name, and its own folder
    std::vector<Package> packages;

    // The folder of a package.
    const std::string& package(const std::string& name) const {
        for (const Package& package : packages) {
            if (package.name == name) return package.path;
        }
        throw std::runtime_error("this engine was not given the package `" + name + "`; pin it in the session");
    }
};

// One task. What the views point to lives as long as the call.
struct Call {
    std::uint64_t task;
    std::string_view payload;
    std::vector<std::string_view> dependencies; // results of the tasks that this one depends on
};

using Run = std::function<std::string(const Call&)>;
using Open = std::function<Run(const Session&)>;

// An error with a class of its own. Other exceptions have the name of their type.
struct Error : std::runtime_error {
    std::string cls;
    Error(std::string cls_, const std::string& message) : std::runtime_error(message), cls(std::move(cls_)) {}
};

namespace detail {

constexpr std::uint16_t protocol = 1;
constexpr std::size_t header_bytes = 5, name_bytes = 4096, text_bytes = 1 << 20, frame_tasks = 1 << 16;
enum Kind : std::uint8_t {
    START = 0x01, OPEN = 0x02, CLOSE = 0x03, RUN = 0x04, CANCEL = 0x05, PING = 0x06,
    HELLO = 0x81, OPENED = 0x82, REFUSED = 0x83, RESULTS = 0x84, PONG = 0x86,
};
enum Status : std::uint8_t { OK = 0, FAILED = 1, CANCELLED = 2 };

// The host has said something that this kit does not understand.
struct ProtocolError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

class Reader {
public:
    explicit Reader(std::string_view body) : rest(body) {}

    std::string_view take(std::size_t n) {
        if (n > rest.size()) throw ProtocolError("a frame ends too early");
        std::string_view piece = rest.substr(0, n);
        rest.remove_prefix(n);
        return piece;
    }

    template <typename T> T number() {
        T value;
        std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
        return value;
    }

    template <typename T> std::vector<T> column(std::size_t count) {
        if (count > rest.size() / sizeof(T)) throw ProtocolError("a frame ends too early");
        std::vector<T> values(count);
        if (count > 0) std::memcpy(values.data(), take(count * sizeof(T)).data(), count * sizeof(T));
        return values;
    }

    std::string_view blob() { return take(number<std::uint32_t>()); }
    std::string text() { return std::string(blob()); }

private:
    std::string_view rest;
};

template <typename T> void put(std::string& out, T value) {
    char bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof(T));
    out.append(bytes, sizeof(T));
}

inline void put_blob(std::string& out, std::string_view bytes) {
    put(out, static_cast<std::uint32_t>(bytes.size()));
    out.append(bytes);
}

// Text for people: cut to whole characters, and what is no UTF-8 is replaced.
inline void put_text(std::string& out, std::string_view text, std::size_t most) {
    std::string clean;
    for (std::size_t i = 0; i < text.size();) {
        const unsigned char c = static_cast<unsigned char>(text[i]);
        const std::size_t n = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
        bool whole = n > 0 && i + n <= text.size();
        for (std::size_t k = 1; whole && k < n; ++k) whole = (static_cast<unsigned char>(text[i + k]) & 0xc0) == 0x80;
        if (whole && n == 3) {
            const unsigned char d = static_cast<unsigned char>(text[i + 1]);
            whole = !(c == 0xe0 && d < 0xa0) && !(c == 0xed && d >= 0xa0);
        } else if (whole && n == 4) {
            const unsigned char d = static_cast<unsigned char>(text[i + 1]);
            whole = !(c == 0xf0 && d < 0x90) && !(c == 0xf4 && d >= 0x90);
        }
        const std::string_view piece = whole ? text.substr(i, n) : std::string_view("?");
        if (clean.size() + piece.size() > most) break;
        clean.append(piece);
        i += whole ? n : 1;
    }
    put_blob(out, clean);
}

inline std::string type_name(const std::type_info& type) {
#if defined(__GNUG__)
    int status = 0;
    char* name = abi::__cxa_demangle(type.name(), nullptr, nullptr, &status);
    std::string found = status == 0 && name != nullptr ? name : type.name();
    std::free(name);
    return found;
#else
    return type.name();
#endif
}

// The error in flight, as it goes on the wire: class, message, traceback, value.
inline std::string current_error() {
    std::string cls = "unknown", message = "something that is no std::exception was thrown";
    try {
        throw;
    } catch (const Error& e) {
        cls = e.cls;
        message = e.what();
    } catch (const std::exception& e) {
        cls = type_name(typeid(e));
        message = e.what();
    } catch (...) {
    }
    std::string out;
    put_text(out, cls, name_bytes);
    put_text(out, message, text_bytes);
    put_blob(out, "");
    put_blob(out, "");
    return out;
}

// The protocol's two pipes, moved out of everybody's way.
class Pipes {
public:
    Pipes() : pid(getpid()) {
        input = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
        output = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
        const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (input < 0 || output < 0 || null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
            throw std::system_error(errno, std::generic_category(), "take over the standard streams");
        }
        close(null);
        // What is printed reaches the log line by line.
        setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
        block.resize(std::size_t{1} << 18);
    }

    bool readable() const {
        pollfd wanted{input, POLLIN, 0};
        return !ended && poll(&wanted, 1, 0) > 0;
    }

    // Adds what comes to the buffer.
    void read() {
        ssize_t n;
        do n = ::read(input, block.data(), block.size());
        while (n < 0 && errno == EINTR);
        if (n < 0) throw std::system_error(errno, std::generic_category(), "read from the host");
        ended = n == 0;
        buffer.append(block.data(), static_cast<std::size_t>(n));
    }

    // The next whole frame; false if there is none.
    bool next(std::uint8_t& kind, std::string& body) {
        if (buffer.size() - at < header_bytes) return compact();
        std::uint32_t length;
        std::memcpy(&length, buffer.data() + at, 4);
        if (length > frame_bytes) throw ProtocolError("a frame is longer than was agreed on");
        if (buffer.size() - at < header_bytes + length) return compact();
        kind = static_cast<std::uint8_t>(buffer[at + 4]);
        body.assign(buffer, at + header_bytes, length);
        at += header_bytes + length;
        return true;
    }

    void write(std::uint8_t kind, std::string_view body) {
        // A forked child that has returned from its task must not speak for the engine.
        if (getpid() != pid) _exit(0);
        std::string frame;
        frame.reserve(header_bytes + body.size());
        put(frame, static_cast<std::uint32_t>(body.size()));
        put(frame, kind);
        frame.append(body);
        for (std::size_t done = 0; done < frame.size();) {
            const ssize_t n = ::write(output, frame.data() + done, frame.size() - done);
            if (n < 0 && errno != EINTR) throw std::system_error(errno, std::generic_category(), "write to the host");
            if (n > 0) done += static_cast<std::size_t>(n);
        }
    }

    std::uint32_t frame_bytes = 64u << 20;
    bool ended = false;

private:
    bool compact() {
        buffer.erase(0, at);
        at = 0;
        return false;
    }

    int input = -1, output = -1;
    pid_t pid;
    std::vector<char> block;
    std::string buffer;
    std::size_t at = 0;
};

// A message that waits, and what has been cancelled of it since it came.
struct Message {
    std::uint8_t kind = 0;
    std::string body;
    std::set<std::uint64_t> cancelled;

    std::uint32_t session() const { return Reader(body).number<std::uint32_t>(); }
};

using Clock = std::chrono::steady_clock;

// What became of a task.
struct Outcome {
    std::uint64_t task, time;
    Status status;
    std::string payload;
};

// Results that wait to be sent together. A thread sees to it that none waits behind a long task. When any are held, nobody else writes.
class Held {
public:
    explicit Held(Pipes& pipes_) : pipes(pipes_) {}

    // When results are sent together: with so many bytes, or so long after the last time.
    void flush(std::size_t bytes, std::chrono::microseconds time) {
        flush_bytes = bytes;
        flush_time = time;
    }

    // Takes a result, and sends what it has if it is time or `now`; whether it has.
    bool add(std::uint32_t of, const Outcome& outcome, bool now) {
        const std::lock_guard<std::mutex> guard(lock);
        if (ids.empty()) since = Clock::now();
        session = of;
        ids.push_back(outcome.task);
        times.push_back(outcome.time);
        lengths.push_back(static_cast<std::uint32_t>(outcome.payload.size()));
        statuses.push_back(static_cast<char>(outcome.status));
        payloads += outcome.payload;
        if (now || payloads.size() >= flush_bytes || ids.size() >= frame_tasks || Clock::now() - sent >= flush_time) {
            send();
            return true;
        }
        if (!watched) {
            watched = true;
            if (started) needed.notify_one();
            else std::thread([this] { look(); }).detach();
            started = true;
        }
        return false;
    }

private:
    void send() {
        std::string frame;
        put(frame, session);
        put(frame, static_cast<std::uint32_t>(ids.size()));
        for (const auto id : ids) put(frame, id);
        for (const auto time : times) put(frame, time);
        for (const auto length : lengths) put(frame, length);
        frame += statuses;
        frame += payloads;
        ids.clear(), times.clear(), lengths.clear(), statuses.clear(), payloads.clear();
        pipes.write(RESULTS, frame);
        sent = Clock::now();
    }

    void look() {
        std::unique_lock<std::mutex> guard(lock);
        for (int nothing = 0;;) {
            needed.wait_for(guard, interval);
            if (!ids.empty()) {
                nothing = 0;
                try {
                    if (Clock::now() - since >= interval) send();
                } catch (const std::exception&) {
                    return; // The host is gone, which the engine's loop is about to see.
                }
            } else if (++nothing == patience) {
                nothing = 0;
                watched = false;
                needed.wait(guard, [this] { return watched; });
            }
        }
    }

    // How often the thread looks, and after how many looks at nothing it sleeps until it is needed.
    static constexpr std::chrono::milliseconds interval{100};
    static constexpr int patience = 10;

    Pipes& pipes;
    std::mutex lock;
    std::condition_variable needed;
    bool started = false, watched = false;
    std::size_t flush_bytes = 65536;
    std::chrono::microseconds flush_time{20000};
    Clock::time_point sent = Clock::now(), since = sent;
    std::uint32_t session = 0;
    std::vector<std::uint64_t> ids, times;
    std::vector<std::uint32_t> lengths;
    std::string statuses, payloads;
};

} // namespace detail

// An engine in the making.
class Engine {
public:
    // Name and version stand in the record of every result.
    Engine(std::string name_, std::string version_) : name(std::move(name_)), version(std::move(version_)) { library(name, version); }

    // Says that the engine has a library in it.
    void library(const std::string& library_name, const std::string& library_version) { loaded.emplace_back(library_name, library_version); }

    // Adds a function under a name. `open` is called once a session, what it returns once a task.
    void function(const std::string& function_name, Open open) { functions[function_name] = std::move(open); }

    // Serves the host until it closes the engine's input. Returns what `main` should.
    int serve() {
        try {
            pipes = new detail::Pipes(); // For as long as the process lives, as is what is held.
            held = new detail::Held(*pipes);
            while (next()) handle();
            return 0;
        } catch (const std::exception& e) {
            std::fprintf(stderr, "%s: %s\n", name.c_str(), e.what());
            return 1;
        }
    }

private:
    // Puts the next message into `current`; waits for it. False when the host has closed the input.
    bool next() {
        while (waiting.empty()) {
            if (pipes->ended) return false;
            read();
        }
        current = std::move(waiting.front());
        waiting.pop_front();
        return true;
    }

    void read() {
        pipes->read();
        detail::Message message;
        while (pipes->next(message.kind, message.body)) {
            if (message.kind == detail::PING) {
                pipes->write(detail::PONG, message.body);
            } else if (message.kind == detail::CANCEL) {
                cancel(detail::Reader(message.body));
            } else {
                waiting.push_back(std::move(message));
                message = detail::Message();
            }
        }
    }

    void cancel(detail::Reader reader) {
        const auto session = reader.number<std::uint32_t>();
        const auto tasks = reader.column<std::uint64_t>(reader.number<std::uint32_t>());
        const auto mark = [&](detail::Message& message) {
            if (message.kind == detail::RUN && message.session() == session) message.cancelled.insert(tasks.begin(), tasks.end());
        };
        mark(current);
        for (detail::Message& message : waiting) mark(message);
    }

    void handle() {
        switch (current.kind) {
        case detail::START: return start();
        case detail::OPEN: return open();
        case detail::CLOSE: sessions.erase(current.session()); return;
        case detail::RUN: return run();
        default: throw detail::ProtocolError("a frame of an unknown kind");
        }
    }

    void start() {
        detail::Reader reader(current.body);
        if (reader.take(4) != "TMEP") throw detail::ProtocolError("the first frame does not begin with TMEP; is this a tidemill host?");
        const auto oldest = reader.number<std::uint16_t>(), newest = reader.number<std::uint16_t>();
        if (detail::protocol < oldest || detail::protocol > newest) throw detail::ProtocolError("the host speaks another version of the protocol");
        pipes->frame_bytes = reader.number<std::uint32_t>();
        flush_bytes = reader.number<std::uint32_t>();
        held->flush(flush_bytes, std::chrono::microseconds(reader.number<std::uint32_t>()));
        surroundings.engine = reader.text();
        surroundings.scratch = reader.text();
        for (auto n = reader.number<std::uint32_t>(); n > 0; --n) {
            Package package;
            package.name = reader.text();
            package.version = reader.text();
            package.path = reader.text();
            surroundings.packages.push_back(std::move(package));
        }
        std::string hello;
        detail::put(hello, detail::protocol);
        detail::put(hello, static_cast<std::uint32_t>(getpid()));
        detail::put_blob(hello, "tidemill-cpp");
        detail::put_blob(hello, "0.1.0");
        detail::put_blob(hello, "c++ " + std::to_string(__cplusplus));
        detail::put(hello, static_cast<std::uint32_t>(loaded.size()));
        for (const auto& [library_name, library_version] : loaded) {
            detail::put_text(hello, library_name, detail::name_bytes);
            detail::put_text(hello, library_version, detail::name_bytes);
        }
        pipes->write(detail::HELLO, hello);
    }

    void open() {
        const auto began = detail::Clock::now();
        detail::Reader reader(current.body);
        const auto number = reader.number<std::uint32_t>();
        reader.take(2); // The formats: bytes are handed through as they are.
        const auto kind = reader.number<std::uint8_t>();
        const std::string wanted = reader.text();
        reader.number<std::uint8_t>();
        reader.blob(); // A set-up function is for engines that can load one.
        reader.number<std::uint8_t>();
        Session session = surroundings;
        session.data = reader.text();
        for (auto n = reader.number<std::uint32_t>(); n > 0; --n) {
            std::string parameter = reader.text();
            session.parameters[std::move(parameter)] = reader.text();
        }
        std::string answer;
        detail::put(answer, number);
        try {
            const auto found = functions.find(wanted);
            if (kind != 3 || found == functions.end()) throw Error("not_found", "`" + name + "` has no function `" + wanted + "`");
            sessions[number] = found->second(session);
            const auto took = std::chrono::duration_cast<std::chrono::microseconds>(detail::Clock::now() - began).count();
            detail::put(answer, static_cast<std::uint64_t>(took));
            detail::put(answer, std::uint32_t{0});
            pipes->write(detail::OPENED, answer);
        } catch (...) {
            pipes->write(detail::REFUSED, answer + detail::current_error());
        }
    }

    void run() {
        detail::Reader reader(current.body);
        const auto number = reader.number<std::uint32_t>();
        const bool step = (reader.number<std::uint32_t>() & 1) != 0;
        const auto count = reader.number<std::uint32_t>(), all = reader.number<std::uint32_t>();
        const auto ids = reader.column<std::uint64_t>(count);
        const auto lengths = reader.column<std::uint32_t>(count);
        std::vector<std::uint32_t> counts(count, 0), dependency_lengths;
        if (all > 0) {
            counts = reader.column<std::uint32_t>(count);
            dependency_lengths = reader.column<std::uint32_t>(all);
        }
        std::vector<std::string_view> payloads;
        for (const auto length : lengths) payloads.push_back(reader.take(length));
        const auto session = sessions.find(number);
        if (session == sessions.end()) throw detail::ProtocolError("tasks in a session that is not open");
        const std::size_t room = flush_bytes + (std::size_t{8} << 20);
        const std::size_t most = pipes->frame_bytes > room + (1u << 15) ? pipes->frame_bytes - room : 1u << 15;
        std::size_t dependency = 0;
        for (std::size_t i = 0; i < count; ++i) {
            Call call{ids[i], payloads[i], {}};
            for (std::uint32_t k = 0; k < counts[i]; ++k) call.dependencies.push_back(reader.take(dependency_lengths.at(dependency++)));
            if (held->add(number, one(session->second, call, most), step || i + 1 == count)) {
                while (pipes->readable()) read();
            }
        }
    }

    detail::Outcome one(const Run& function, const Call& call, std::size_t most) {
        const auto began = detail::Clock::now();
        detail::Outcome outcome{call.task, 0, detail::OK, {}};
        if (current.cancelled.count(call.task) != 0) {
            outcome.status = detail::CANCELLED;
            return outcome;
        }
        try {
            outcome.payload = function(call);
            if (outcome.payload.size() > most) throw Error("too_large", "the result has " + std::to_string(outcome.payload.size()) + " bytes, at most " + std::to_string(most) + " are allowed");
        } catch (...) {
            outcome.payload = detail::current_error();
            outcome.status = detail::FAILED;
        }
        outcome.time = static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(detail::Clock::now() - began).count());
        return outcome;
    }

    std::string name, version;
    std::vector<std::pair<std::string, std::string>> loaded;
    std::map<std::string, Open> functions;
    Session surroundings;
    std::map<std::uint32_t, Run> sessions;
    detail::Pipes* pipes = nullptr;
    detail::Held* held = nullptr;
    std::deque<detail::Message> waiting;
    detail::Message current;
    std::size_t flush_bytes = 65536;
};

} // namespace tidemill

#endif
