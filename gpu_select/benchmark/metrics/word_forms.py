"""Forms of an English word: what a concept may look like in a sentence."""

from __future__ import annotations

__all__ = ["word_forms"]

_VOWELS = "aeiou"


def word_forms(word: str) -> frozenset[str]:
    """The word in lower case with its plural and its verb forms, some that English does not have among them."""
    forms = {word, *_IRREGULAR.get(word, ())}
    stem, last = word[:-1], word[-1:]
    if last == "y" and stem and stem[-1] not in _VOWELS:
        forms |= {stem + "ies", stem + "ied", word + "ing"}
    elif last == "e":
        forms |= {word + "s", word + "d", stem + "ing", word + "ing"}
        if word.endswith("ie"):
            forms.add(word[:-2] + "ying")
    elif word:
        forms |= {word + "s", word + "es", word + "ed", word + "ing"}
        if len(word) > 2 and last not in _VOWELS + "wxy" and word[-2] in _VOWELS and word[-3] not in _VOWELS:
            forms |= {word + last + "ed", word + last + "ing"}  # stop, stopping
    return frozenset(forms)


def _rows(table: str) -> dict[str, tuple[str, ...]]:
    rows = (line.split() for line in table.splitlines() if line.strip())
    return {row[0]: tuple(row[1:]) for row in rows}


_IRREGULAR = _rows(
    """
    arise arose arisen
    awake awoke awoken
    be am is are was were been being
    bear bore borne born
    beat beaten
    become became
    begin began begun
    bend bent
    bind bound
    bite bit bitten
    bleed bled
    blow blew blown
    break broke broken
    bring brought
    build built
    burn burnt
    buy bought
    calf calves
    catch caught
    child children
    choose chose chosen
    cling clung
    come came
    creep crept
    deal dealt
    dig dug
    dive dove
    do does did done
    draw drew drawn
    dream dreamt
    drink drank drunk
    drive drove driven
    eat ate eaten
    elf elves
    fall fell fallen
    feed fed
    feel felt
    fight fought
    find found
    flee fled
    fling flung
    fly flew flown
    foot feet
    forget forgot forgotten
    freeze froze frozen
    get got gotten
    give gave given
    go goes went gone
    goose geese
    grind ground
    grow grew grown
    half halves
    hang hung
    have has had
    hear heard
    hide hid hidden
    hold held
    hoof hooves
    keep kept
    kneel knelt
    knife knives
    know knew known
    lay laid
    lead led
    leaf leaves
    lean leant
    leap leapt
    learn learnt
    leave left
    lend lent
    lie lay lain
    life lives
    light lit
    loaf loaves
    lose lost
    make made
    man men
    mean meant
    meet met
    mouse mice
    ox oxen
    pay paid
    person people
    ride rode ridden
    ring rang rung
    rise rose risen
    run ran
    say said
    scarf scarves
    see saw seen
    seek sought
    sell sold
    send sent
    sew sewn
    shake shook shaken
    shear shorn
    shelf shelves
    shine shone
    shoot shot
    show shown
    shrink shrank shrunk
    sing sang sung
    sink sank sunk
    sit sat
    sleep slept
    slide slid
    sling slung
    smell smelt
    speak spoke spoken
    speed sped
    spend spent
    spill spilt
    spin spun
    spit spat
    spring sprang sprung
    stand stood
    steal stole stolen
    stick stuck
    sting stung
    stride strode stridden
    strike struck
    string strung
    swear swore sworn
    sweep swept
    swell swollen
    swim swam swum
    swing swung
    take took taken
    teach taught
    tear tore torn
    tell told
    thief thieves
    think thought
    throw threw thrown
    tooth teeth
    wake woke woken
    wear wore worn
    weave wove woven
    weep wept
    wife wives
    win won
    wind wound
    wolf wolves
    woman women
    wring wrung
    write wrote written
    """
)
