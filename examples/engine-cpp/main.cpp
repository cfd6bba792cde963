// A thin main around an unmodified legacy library: a task is "strike years", a result the price.
#include "legacy_pricer.h"
#include "tidemill_engine.hpp"

#include <cstdio>
#include <stdexcept>
#include <string>

int main() {
    tidemill::Engine engine("legacy-pricer", "3.2");
    engine.function("call", [](const tidemill::Session& session) -> tidemill::Run {
        // Once a session: the market, which the library keeps.
        if (const int error = lp_load_market(session.data.c_str())) throw std::invalid_argument(lp_error(error));
        return [](const tidemill::Call& call) {
            double strike, years, price;
            if (std::sscanf(std::string(call.payload).c_str(), "%lf %lf", &strike, &years) != 2) {
                throw std::runtime_error("a task is a strike and a number of years");
            }
            if (const int error = lp_call(strike, years, &price)) throw std::invalid_argument(lp_error(error));
            char text[32];
            std::snprintf(text, sizeof text, "%.17g", price);
            return std::string(text);
        };
    });
    return engine.serve();
}
