"""Question templates of the simulated benchmark: three families in each of the 14 documented domains.

A template holds slots such as `{city}`; its words come from `SLOTS`, and `{city1}` and `{city2}` are two
different ones. Families of one domain ask for different skills, so that the text says more about the best model than
the domain does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

__all__ = ["FAMILIES", "OPENERS", "SLOTS", "Family"]


class Family(NamedTuple):
    """Templates that ask for the same skill in the same domain, and are equally hard."""

    domain: str
    skill: str
    """`recall`, `calculation`, `proof`, `code`, `explanation` or `judgement`."""
    templates: tuple[str, ...]


OPENERS: tuple[str, ...] = (
    *("",) * 6,
    "Quick question: ",
    "I am preparing for an exam. ",
    "Please help me with this. ",
    "For a class tomorrow: ",
)
"""What stands before the question; most have nothing there."""

FAMILIES: tuple[Family, ...] = (
    Family(
        "math",
        "recall",
        (
            "What is {small1} times {small2} plus {count}?",
            "Round {big} to the nearest {power}.",
            "{name} has {count} {goods}, gives away {digit} of them and then buys {small} more. How many are "
            "there now?",
        ),
    ),
    Family(
        "math",
        "calculation",
        (
            "Evaluate the definite integral of x^{digit} * {transcendental}({small} x) from 0 to {digit2}.",
            "Find all real solutions of {small1} x^2 + {count} x - {small2} = 0 and give them to {digit} decimals.",
            "An urn holds {small1} red and {small2} blue balls. What is the probability that {digit} balls "
            "drawn without replacement are all red?",
        ),
    ),
    Family(
        "math",
        "proof",
        (
            "Prove that every {algebra} of order {big} has {group_property}.",
            "Prove by induction that {digit1}^n > n^{digit2} + {big} for all sufficiently large n.",
            "Prove or disprove: a {space} in which {space_property} is {space_conclusion}. Take {big} as the "
            "cardinality.",
        ),
    ),
    Family(
        "physics",
        "recall",
        (
            "What is the SI unit of {quantity}, and who is the unit of {quantity2} named after?",
            "Does {material} conduct heat better than {material2} at {count} degrees?",
            "Name the instrument that measures {quantity} in a {material} sample.",
        ),
    ),
    Family(
        "physics",
        "calculation",
        (
            "A {count1} kg {body} slides down a {small} degree slope of length {count2} m. What is its final speed?",
            "A {material} wire of length {count} m carries {small} A at {big} V. How much heat is released in "
            "{count2} s?",
            "A {body} is launched at {count1} m/s at an angle of {count2} degrees. Compute its range and its "
            "flight time.",
        ),
    ),
    Family(
        "physics",
        "explanation",
        (
            "Explain the idea of {phenomenon} without formulas to {name}, aged {age}.",
            "Why does {phenomenon1} matter for {phenomenon2}? Describe the idea behind both.",
            "What would everyday life in {city} look like without {phenomenon}? Discuss.",
        ),
    ),
    Family(
        "chemistry",
        "recall",
        (
            "What is the chemical symbol of {element1}, and is it heavier than {element2}?",
            "Is {compound} an acid, a base or a salt? Compare it with {compound2}.",
            "In which group of the periodic table do you find {element}, and what colour is its flame at "
            "{big} degrees?",
        ),
    ),
    Family(
        "chemistry",
        "calculation",
        (
            "How many grams of {compound} are needed to make {big} ml of a 0.{small} molar solution?",
            "Balance the reaction of {compound1} with {compound2} and give the mass of product from {count} g.",
            "A buffer holds {count1} mmol of {compound} and {count2} mmol of its conjugate. What is the pH?",
        ),
    ),
    Family(
        "chemistry",
        "explanation",
        (
            "Describe the reaction mechanism by which {reagent} attacks {organic}, and the role of {compound}.",
            "Why is {organic1} more reactive towards {reagent} than {organic2}?",
            "Propose a synthesis of {organic1} starting from {organic2} with {reagent}.",
        ),
    ),
    Family(
        "biology",
        "recall",
        (
            "How many chromosomes does a {animal1} have compared with a {animal2}?",
            "Where in {country} does the {animal1} live side by side with the {animal2}?",
            "Which organelle is responsible for {process} in the cells of a {animal}?",
        ),
    ),
    Family(
        "biology",
        "explanation",
        (
            "Explain how {protein} regulates {process} in {tissue} cells.",
            "What happens to {process} when {protein} is knocked out in the {tissue} of a {animal}?",
            "Compare the roles of {protein1} and {protein2} during {process}.",
        ),
    ),
    Family(
        "biology",
        "calculation",
        (
            "In a population of {big} {animal}s, {count} carry the recessive trait. Under Hardy-Weinberg "
            "equilibrium, how many are heterozygous?",
            "A colony of {tissue} cells doubles every {count} minutes. How many cells grow from {small} in "
            "{small2} hours?",
            "Two {animal}s heterozygous at {digit} unlinked loci are crossed. Which share of {big} offspring "
            "is homozygous?",
        ),
    ),
    Family(
        "computer science",
        "recall",
        (
            "What does the abbreviation {acronym} stand for, and how is it related to {acronym2}?",
            "Which port does {acronym} use by default, and is {port} free to use in {language}?",
            "Is {language1} statically typed like {language2}?",
        ),
    ),
    Family(
        "computer science",
        "code",
        (
            "Write a function in {language} that {code_task} for a list of {big} {goods}.",
            "My {language} program crashes with {error_name} when it {code_task}. How do I fix the code?",
            "Refactor this {language} class so that it {code_task} and add unit tests with {small} cases.",
        ),
    ),
    Family(
        "computer science",
        "proof",
        (
            "Prove that {graph_problem} on graphs of maximum degree {digit} is NP-hard, by reduction from "
            "{graph_problem2}.",
            "Derive a tight lower bound on the number of comparisons for {graph_problem} with {big} vertices.",
            "Show that the language of {graph_problem} instances with at least {count} edges is not regular.",
        ),
    ),
    Family(
        "engineering",
        "recall",
        (
            "What is the usual service life of a {machine} that was built in {country} in {year}?",
            "Which parts of a {machine} are made of {material}?",
            "What does the warning light number {count} on a {machine} mean?",
        ),
    ),
    Family(
        "engineering",
        "calculation",
        (
            "A {material} beam of {digit} m carries {big} N at midspan. Compute the maximum bending stress "
            "for a depth of {count} mm.",
            "Size the pipe for a {machine} that pumps {big} litres a minute over {count} m with a head loss "
            "below {small} m.",
            "A {machine} runs at {big} rpm and {count} kW. What is the torque on its shaft, and the loss at "
            "{count2} percent efficiency?",
        ),
    ),
    Family(
        "engineering",
        "code",
        (
            "Write firmware in {language} that reads the sensor of a {machine} every {count} ms over {acronym}.",
            "Give me a {language} script which logs the {quantity} of a {machine} and raises an alarm above {big}.",
            "Implement a PID controller in {language} for the {quantity} of a {machine} with a sampling time "
            "of {count} ms.",
        ),
    ),
    Family(
        "economics",
        "recall",
        (
            "What is the currency of {country}, and who issues it?",
            "Define {econ_term} in one sentence, with an example from {country}.",
            "Does {country1} export more {goods} than {country2}?",
        ),
    ),
    Family(
        "economics",
        "calculation",
        (
            "Demand for {goods} is Q = {big} - {small} P and supply is Q = {count} P. Find the equilibrium "
            "price and quantity.",
            "A bond with a {digit} percent coupon and {count} years to maturity yields {digit2} percent. What "
            "is its price?",
            "A firm in {city} has cost {big} + {small} q + {digit} q^2. Which output q maximises profit at a "
            "price of {count}?",
        ),
    ),
    Family(
        "economics",
        "judgement",
        (
            "Should the central bank of {country} worry about {econ_term} now? Weigh the arguments.",
            "Discuss the likely effect on {country1} of a tariff on {goods} from {country2}.",
            "Was {econ_term} the main cause of the slump in {country} in {year}? Give both sides.",
        ),
    ),
    Family(
        "business",
        "recall",
        (
            "What does the term {business_term} mean to a shop that sells {goods}?",
            "Who in a company usually signs off the {business_term} report in {country}?",
            "Give one example of {business_term} in the {goods} trade of {country}.",
        ),
    ),
    Family(
        "business",
        "judgement",
        (
            "A company in {city} that sells {goods} wants to enter {country}. Which strategy would you recommend?",
            "Draft a response to an angry customer in {city} whose {goods} arrived {small} days late.",
            "Our {business_term} fell by {small} percent after we moved from {city1} to {city2}. What should "
            "the board do?",
        ),
    ),
    Family(
        "business",
        "calculation",
        (
            "A shop buys {goods} at {count} and sells at {big}, with {big2} in fixed costs. How many units to "
            "break even?",
            "Compute the net present value of {big} a year for {small} years at {digit} percent, for a "
            "{machine} project.",
            "With annual demand of {big} {goods}, order cost {count} and holding cost {digit}, what is the "
            "economic order quantity?",
        ),
    ),
    Family(
        "health",
        "recall",
        (
            "How many hours of sleep does somebody aged {age} need, and is a late dinner of {food} a bad idea?",
            "Is a diet rich in {food} good at the age of {age}?",
            "How many calories are in {count} grams of {food}?",
        ),
    ),
    Family(
        "health",
        "explanation",
        (
            "A patient aged {age} presents with {symptom1} and {symptom2}. What is the differential diagnosis?",
            "How does {drug} relieve {symptom}, and when is it contraindicated at the age of {age}?",
            "Describe the pathophysiology that links {symptom1} to {symptom2} in patients on {drug}.",
        ),
    ),
    Family(
        "health",
        "judgement",
        (
            "A patient aged {age} refuses {drug} for {symptom}. How should the nurse in {city} talk with the family?",
            "How should a town such as {city} plan its screening for {symptom} with a budget of {big} a year?",
            "What would you tell {name}, aged {age}, who has {symptom} and reads alarming posts about {drug}?",
        ),
    ),
    Family(
        "psychology",
        "recall",
        (
            "Who introduced the concept of {bias}?",
            "Give an everyday example of {bias} from the life of somebody aged {age}.",
            "What is the opposite of {bias}, and is it the same as {bias2}?",
        ),
    ),
    Family(
        "psychology",
        "explanation",
        (
            "Which neural pathways and transmitters underlie {bias} in a patient with {symptom}?",
            "How does {drug} act on the {tissue} and thereby change {bias}?",
            "Explain how lesions of the {tissue} affect {bias} and {symptom}.",
        ),
    ),
    Family(
        "psychology",
        "judgement",
        (
            "{name} keeps quarrelling with a colleague in {city} and shows signs of {bias}. What would you advise?",
            "Evaluate the claim that {bias} explains why people in {country} buy too much {food}.",
            "Is it ethical to use {bias} when designing an advertisement for {goods} in {country}?",
        ),
    ),
    Family(
        "history",
        "recall",
        (
            "In which century was {city} founded?",
            "Who ruled {country} in {year}?",
            "Which war was {country1} fighting against {country2} in {year}?",
        ),
    ),
    Family(
        "history",
        "explanation",
        (
            "Why did {movement} spread from {country1} to {country2} after {year}?",
            "Describe how {movement} changed daily life in {city} around {year}.",
            "What were the long-term consequences of {movement} for {country}?",
        ),
    ),
    Family(
        "history",
        "judgement",
        (
            "Assess how reliable a merchant's diary from {city}, written in {year}, is as a source on {movement}.",
            "To what extent was {movement} in {country} a break with the past? Argue your case.",
            "Historians disagree on whether {movement1} or {movement2} shaped {country} more. Whom do you follow?",
        ),
    ),
    Family(
        "law",
        "recall",
        (
            "What does the legal term {legal_term} mean? Give an example from {country}.",
            "What is the voting age in {country}, and was it the same in {year}?",
            "Who has the burden of proof in a case of {legal_term} in {country}?",
        ),
    ),
    Family(
        "law",
        "judgement",
        (
            "{name1} sold {name2} {goods} that were defective. Can {name2} rescind the contract and claim "
            "{legal_term}?",
            "{name}'s dog injures a courier in {city}. Is {name} liable, and is {legal_term} a defence?",
            "A landlord in {city} evicts {name} after {count} days without notice. Does {legal_term} apply?",
        ),
    ),
    Family(
        "law",
        "explanation",
        (
            "Explain how courts in {country} distinguish {legal_term1} from {legal_term2}.",
            "Summarise the history of {legal_term} in {country} since {year}.",
            "Why does the law of {country} treat {legal_term} differently when {goods} are involved?",
        ),
    ),
    Family(
        "philosophy",
        "recall",
        (
            "Which school of thought does {philosopher} belong to?",
            "Did {philosopher1} write about {idea} before {philosopher2}?",
            "Name one book by {philosopher} that deals with {idea}.",
        ),
    ),
    Family(
        "philosophy",
        "judgement",
        (
            "Would {philosopher1} accept {philosopher2}'s account of {idea}? Argue carefully.",
            "Is {idea} compatible with {idea2}? Give the strongest objection.",
            "Defend {philosopher} against the charge that {idea} is circular.",
        ),
    ),
    Family(
        "philosophy",
        "proof",
        (
            "Translate the argument of {philosopher} on {idea} into first-order logic and prove that it is valid.",
            "Give a natural deduction proof, in at most {count} lines, of the schema that {philosopher} uses "
            "for {idea}.",
            "Show that the {digit} premises about {idea} and {idea2} are jointly inconsistent in modal logic "
            "S{digit2}.",
        ),
    ),
    Family(
        "other",
        "recall",
        (
            "What is the capital of {country}, and how far is it from {city}?",
            "How do you say thank you in the language of {country}?",
            "At what time do shops close in {city} on day {count} of the year?",
        ),
    ),
    Family(
        "other",
        "judgement",
        (
            "Plan a {digit} day trip from {city1} to {city2} for a family that likes {food}.",
            "Write a birthday speech for {name}, who turns {age} and collects {goods}.",
            "Suggest a menu with {food1} and {food2} for {small} guests from {country}.",
        ),
    ),
    Family(
        "other",
        "code",
        (
            "Write a spreadsheet formula that {code_task} for the {goods} in column {digit}.",
            "Make a {language} page which shows {count} pictures of {city} and {code_task}.",
            "Give me a {language} one-liner that renames {big} photos of {city} by date.",
        ),
    ),
)


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


SLOTS: Mapping[str, Sequence[str | int]] = {
    "acronym": _split(
        "TCP, UDP, DNS, HTTP, SSH, SMTP, FTP, TLS, NTP, IMAP, SNMP, MQTT, RPC, SQL, JSON, CAN, SPI, LDAP, DHCP, BGP"
    ),
    "age": range(18, 90),
    "algebra": _split(
        "finite group, abelian group, commutative ring, finite field, nilpotent group, solvable group, division "
        "algebra, Lie algebra"
    ),
    "animal": _split(
        "horse, frog, pigeon, rabbit, hedgehog, bear, seal, tortoise, crow, lizard, bat, bee, squid, beaver, "
        "badger, hamster, goat, turtle, spider, salamander"
    ),
    "bias": _split(
        "confirmation bias, anchoring, cognitive dissonance, learned helplessness, the bystander effect, attachment "
        "anxiety, the halo effect, loss aversion, operant conditioning, selective attention, hindsight bias, "
        "groupthink, working memory, the placebo effect, impulse control, self-efficacy, rumination, fear "
        "conditioning, habituation, social comparison"
    ),
    "big": range(100, 1000),
    "body": _split("crate, sledge, ball, cart, stone, cylinder, puck, cannonball, skater, barrel, disc"),
    "business_term": _split(
        "working capital, gross margin, customer churn, brand equity, market share, inventory turnover, cash flow, "
        "goodwill, franchising, vertical integration, outsourcing, cost of sales, return on equity, price skimming, "
        "supply chain risk, depreciation"
    ),
    "city": _split(
        "Lisbon, Vienna, Oslo, Porto, Lyon, Krakow, Turin, Ghent, Seville, Riga, Kyoto, Osaka, Lima, Quito, Cairo, "
        "Tunis, Nairobi, Accra, Delhi, Chennai, Boston, Denver, Toronto, Perth, Auckland, Hanoi, Dublin, Bergen, "
        "Zagreb, Sofia"
    ),
    "code_task": _split(
        "removes duplicates while keeping the order, merges overlapping intervals, parses dates in mixed formats, "
        "sorts the entries by two keys, groups the rows by month, computes a running median, validates e-mail "
        "addresses, reads a large file in chunks, retries a failed request with backoff, caches the most recent "
        "results, converts nested data into a flat table, counts the words in each line, finds the longest common "
        "prefix, highlights the largest values, splits the names into first and last name, sends a reminder every "
        "Monday"
    ),
    "compound": _split(
        "sodium chloride, acetic acid, ammonia, sulfuric acid, potassium nitrate, calcium carbonate, sodium "
        "hydroxide, copper sulfate, phosphoric acid, silver nitrate, magnesium oxide, lithium hydroxide, barium "
        "chloride, formic acid, zinc iodide, iron sulfide"
    ),
    "count": range(11, 100),
    "country": _split(
        "France, Japan, Brazil, Egypt, Norway, Poland, India, Mexico, Kenya, Turkey, Spain, Portugal, Chile, Peru, "
        "Ghana, Vietnam, Greece, Hungary, Austria, Denmark, Canada, Morocco, Thailand, Finland, Bolivia, Iceland"
    ),
    "digit": range(2, 10),
    "drug": _split(
        "ibuprofen, metformin, amoxicillin, warfarin, lisinopril, sertraline, omeprazole, salbutamol, prednisone, "
        "atorvastatin, diazepam, furosemide, levothyroxine, morphine"
    ),
    "econ_term": _split(
        "inflation, unemployment, public debt, wage growth, income inequality, moral hazard, capital flight, "
        "deflation, monopoly power, a trade deficit, a housing bubble, money supply growth, adverse selection, "
        "opportunity cost, currency devaluation, low productivity"
    ),
    "element": _split(
        "sodium, potassium, copper, iron, zinc, tin, lead, gold, silver, calcium, barium, lithium, neon, argon, "
        "boron, cobalt, nickel, strontium, caesium, magnesium"
    ),
    "error_name": _split(
        "a null pointer exception, a stack overflow, an index out of range error, a deadlock, a memory leak, a type "
        "error, a segmentation fault, a race condition, an encoding error, an import error, a timeout, an assertion "
        "failure"
    ),
    "food": _split(
        "spinach, lentils, yoghurt, almonds, salmon, rice, chocolate, broccoli, cheese, oranges, mushrooms, olives, "
        "beans, eggs, pasta, tofu, pumpkin, walnuts"
    ),
    "goods": _split(
        "apples, bicycles, books, chairs, lamps, stamps, tiles, shoes, watches, candles, umbrellas, guitars, "
        "violins, coins, carpets, bottles, batteries, cameras, toys, teapots"
    ),
    "graph_problem": _split(
        "vertex cover, independent set, graph colouring, Hamiltonian cycle, maximum cut, dominating set, clique, "
        "feedback arc set, Steiner tree, bin packing, subset sum, set cover"
    ),
    "group_property": _split(
        "a nontrivial centre, a normal subgroup of prime index, a unique maximal ideal, a composition series, an "
        "element of prime order, a faithful representation, only finitely many automorphisms, a cyclic group of "
        "units"
    ),
    "idea": _split(
        "free will, personal identity, moral duty, the social contract, the existence of God, knowledge as "
        "justified belief, the good life, causation, mind-body dualism, the problem of evil, natural rights, "
        "aesthetic taste, scepticism, the categorical imperative, utility as happiness, the nature of time"
    ),
    "language": _split(
        "Python, Java, Rust, Go, JavaScript, TypeScript, Kotlin, Swift, Ruby, Haskell, Scala, Perl, C, PHP, Lua"
    ),
    "legal_term": _split(
        "negligence, estoppel, adverse possession, force majeure, unjust enrichment, contributory negligence, "
        "strict liability, breach of warranty, duress, consideration, self-defence, res judicata, double jeopardy, "
        "undue influence, trespass, defamation"
    ),
    "machine": _split(
        "centrifugal pump, wind turbine, lathe, conveyor belt, heat exchanger, gearbox, hydraulic press, crane, "
        "compressor, diesel generator, milling machine, freight lift, boiler, cooling tower, robot arm, water "
        "turbine"
    ),
    "material": _split("copper, steel, zinc, glass, rubber, graphite, silicon, pine, brass, concrete, titanium, nylon"),
    "movement": _split(
        "the Reformation, industrialisation, the Enlightenment, the labour movement, land reform, the printing "
        "press, romantic nationalism, the spice trade, the suffrage movement, the great plague, railway building, "
        "the abolition of serfdom, colonial expansion, the temperance movement, the gold rush, the Renaissance"
    ),
    "name": _split(
        "Anna, Ben, Carla, David, Elena, Farid, Grace, Hugo, Irene, Jonas, Kemal, Laura, Mateo, Nadia, Oscar, "
        "Priya, Quentin, Rosa, Samir, Tara, Umar, Vera, Wei, Ximena, Yusuf, Zoe"
    ),
    "organic": _split(
        "benzene, acetone, ethanol, phenol, toluene, aniline, cyclohexene, benzaldehyde, acetophenone, ethyl "
        "acetate, pyridine, styrene, butanol, furan"
    ),
    "phenomenon": _split(
        "total internal reflection, superconductivity, resonance, entropy growth, time dilation, quantum "
        "tunnelling, electromagnetic induction, diffraction, surface tension, the Doppler effect, radioactive "
        "decay, thermal expansion, polarisation, capillary action"
    ),
    "philosopher": _split(
        "Plato, Aristotle, Kant, Hume, Descartes, Spinoza, Hegel, Nietzsche, Locke, Leibniz, Mill, Aquinas, "
        "Epicurus, Rousseau, Hobbes, Berkeley, Schopenhauer, Kierkegaard, Confucius, Avicenna"
    ),
    "port": range(1024, 9999),
    "power": (10, 20, 25, 50, 100),
    "process": _split(
        "glycolysis, photosynthesis, DNA replication, cell division, apoptosis, protein folding, signal "
        "transduction, gene silencing, membrane transport, oxidative phosphorylation, RNA splicing, autophagy, "
        "immune recognition, cell migration"
    ),
    "protein": _split(
        "p53, insulin, ubiquitin, actin, cyclin B, BRCA1, collagen, dynein, haemoglobin, keratin, tubulin, "
        "caspase-3, the Ras protein, NF-kB"
    ),
    "quantity": _split(
        "pressure, electric charge, magnetic flux, temperature, force, power, capacitance, frequency, inductance, "
        "luminous intensity, momentum, viscosity, conductivity, torque"
    ),
    "reagent": _split(
        "bromine, sodium borohydride, a Grignard reagent, concentrated nitric acid, ozone, hydrogen peroxide, "
        "lithium aluminium hydride, acetyl chloride, thionyl chloride, a strong base, methyl iodide, a palladium "
        "catalyst"
    ),
    "small": range(2, 60),
    "space": _split("topological space, metric space, Banach space, Hilbert space, manifold, measure space"),
    "space_conclusion": _split("compact, separable, complete, connected, metrizable, locally convex"),
    "space_property": _split(
        "every sequence has a convergent subsequence, all closed sets are open, every continuous function is "
        "bounded, points can be separated by functions, the unit ball is totally bounded, every open cover has a "
        "finite refinement"
    ),
    "symptom": _split(
        "chest pain, shortness of breath, chronic fatigue, joint swelling, persistent cough, night sweats, "
        "migraine, high blood pressure, abdominal cramps, insomnia, tremor, memory loss, blurred vision, "
        "palpitations, a skin rash, dizziness"
    ),
    "tissue": _split(
        "liver, hippocampus, amygdala, retina, bone marrow, prefrontal cortex, kidney, thalamus, skeletal muscle, "
        "cerebellum"
    ),
    "transcendental": _split("sin, cos, exp, sinh, cosh, arctan"),
    "year": range(1450, 1950),
}
"""The words of each slot."""
